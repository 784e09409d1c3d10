"""What a tenant has under way, bounded: nobody's calls take up the memory or the engine that are there for others."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from fedbbpt.errors import Overloaded
from fedbbpt.ptm.tenants.idempotency import Replies
from fedbbpt.ptm.tenants.registry import Tenant

T = TypeVar("T")


class UnderWay:
    """Of one tenant, for one event loop."""

    def __init__(self, tenant: Tenant, replies: Replies, *, max_bytes: int, max_planned: int) -> None:
        self.tenant, self.replies = tenant, replies
        self._max_bytes, self._bytes = max_bytes, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.turn = asyncio.Lock()
        """For what takes the engine long: a call that is cancelled before its turn is never begun."""
        self.planned = asyncio.Semaphore(max_planned)
        """Calls whose prompts are in memory; others wait."""

    async def run(self, call: Callable[[], T]) -> T:
        """In the tenant's own thread: what its large calls take to be planned, others do not wait for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        """While a call is open, its request takes `size` bytes. Raises Overloaded; one alone is always taken."""
        if self._bytes and self._bytes + size > self._max_bytes:
            what = f"requests of {self._bytes} bytes are open"
            raise Overloaded(what, where="requests", fix=f"try again; {self._max_bytes} may be")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def close(self) -> None:
        self._thread.shutdown()
