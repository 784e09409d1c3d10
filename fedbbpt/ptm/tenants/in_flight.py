"""Limits the calls that one tenant has in flight, so that no tenant takes up the memory or the engine of others."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from fedbbpt.errors import Overloaded
from fedbbpt.ptm.tenants.idempotency import ReplyCache
from fedbbpt.ptm.tenants.tenant import Tenant

T = TypeVar("T")


class InFlightCalls:
    """The calls of one tenant, and its replies by idempotency key. For one event loop."""

    def __init__(self, tenant: Tenant, replies: ReplyCache, *, max_bytes: int, max_planned: int) -> None:
        """`max_bytes` limits open requests, `max_planned` the calls whose prompts are in memory."""
        self.tenant, self.replies = tenant, replies
        self._max_bytes, self._bytes = max_bytes, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tenant-{tenant.name}")
        self.turn = asyncio.Lock()
        """Held during slow work in the engine. A call that is cancelled before its turn never begins that work."""
        self.planned = asyncio.Semaphore(max_planned)
        """Held by calls whose prompts are in memory; further calls wait."""

    async def run(self, call: Callable[[], T]) -> T:
        """Runs `call` in the tenant's own thread, so that planning its large calls does not delay other tenants."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    @contextmanager
    def open_request(self, size: int) -> Iterator[None]:
        """Counts a request of `size` bytes as open.

        Raises Overloaded if the open requests would be too large together. A single request is always admitted.
        """
        if self._bytes and self._bytes + size > self._max_bytes:
            what = f"requests of {self._bytes} bytes are open"
            raise Overloaded(what, where="requests", fix=f"try again; the limit is {self._max_bytes} bytes")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def close(self) -> None:
        """Ends the tenant's thread."""
        self._thread.shutdown()
