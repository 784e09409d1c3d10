"""What a tenant has under way, bounded: nobody's calls take up the memory or the engine that are there for others."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fedbbpt.errors import Overloaded


class UnderWay:
    """Of one tenant, for one event loop."""

    def __init__(self, *, max_bytes: int, max_planned: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self.turn = asyncio.Lock()
        """With the engine. A tenant's calls take it one after the other, so that between two of them others get theirs;
        one that is cancelled before it gets its turn is never planned."""
        self.planned = asyncio.Semaphore(max_planned)
        """Calls whose prompts are in memory; more wait."""

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
