"""Reading the only message of a request that is served as a stream."""

import asyncio
from collections.abc import AsyncIterator

from fedbbpt.errors import DeadlineExceeded, InvalidRequest


async def only_message(requests: AsyncIterator[bytes], seconds: float) -> bytes:
    """Returns the bytes of a request's only message.

    Raises:
        DeadlineExceeded: it has not arrived within so many seconds.
        InvalidRequest: the caller ended the request without one.
    """
    try:
        found = await asyncio.wait_for(anext(requests, None), seconds)
    except TimeoutError:
        what, fix = f"no message within {seconds:g} seconds", "a faster connection, or a smaller message"
        raise DeadlineExceeded(what, where="request", fix=fix) from None
    if found is None:
        raise InvalidRequest("no message", where="request", fix="one message")
    return found
