"""Server-sent events: how a stream of records travels to a browser."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from fedbbpt.host.json_text import json_text
from fedbbpt.web.dashboard.live_runs import Interrupted

HEARTBEAT_SECONDS = 15.0
"""The longest silence of a stream, so that no proxy takes it for dead."""
RECONNECT_MILLISECONDS = 1000
"""How long a browser waits before it opens a broken stream again."""


async def encoded(items: AsyncIterator[dict[str, Any]], heartbeat_seconds: float) -> AsyncIterator[str]:
    """Yields each item as an event `change`, comments while there are none, and `end` after the last."""
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
    number = 0
    coming = asyncio.ensure_future(anext(items, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=heartbeat_seconds)
            if not done:
                yield ":\n\n"
                continue
            try:
                item = coming.result()
            except Interrupted:
                return  # a browser opens the stream again
            if item is None:
                yield "event: end\ndata: {}\n\n"
                return
            number += 1
            yield f"id: {number}\nevent: change\ndata: {json_text(item)}\n\n"
            coming = asyncio.ensure_future(anext(items, None))
    finally:
        coming.cancel()


def stream(items: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Returns the response that sends the items as they come."""
    return StreamingResponse(encoded(items, HEARTBEAT_SECONDS), media_type="text/event-stream")
