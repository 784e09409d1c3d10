"""Answers by idempotency key: a call that is made again joins the first, or gets its answer, and costs nothing."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fedbbpt.errors import InvalidRequest

MAX_KEY_CHARACTERS = 64
OVERHEAD_BYTES = 500
"""Of Python, for each answer and its key."""


@dataclass(slots=True, eq=False)
class _Open:
    """A call under way."""

    request: bytes
    """Its digest."""
    task: asyncio.Task[bytes]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    request: bytes
    answer: bytes
    at: float

    @property
    def bytes(self) -> int:
        return len(self.answer) + OVERHEAD_BYTES


class Replies:
    """One tenant's serialised answers of the last `seconds`, at most `max_bytes` of them.

    For one event loop; time comes in.
    """

    def __init__(self, *, seconds: float, max_bytes: int, clock: Callable[[], float]) -> None:
        self._seconds, self._max_bytes, self._clock = seconds, max_bytes, clock
        self._open: dict[str, _Open] = {}
        self._kept: OrderedDict[str, _Answer] = OrderedDict()  # the oldest first
        self._bytes = 0

    async def once(self, key: str, request: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `make` gives, or gave. It is given up when nobody waits for it any more; what failed is forgotten.

        Raises InvalidRequest for a key of another request, and whatever `make` raises.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            what, fix = f"{len(key)} characters", f"at most {MAX_KEY_CHARACTERS}"
            raise InvalidRequest(what, where="idempotency_key", fix=fix)
        self.forget()
        known = self._kept.get(key) or self._open.get(key)
        if known is not None and known.request != request:
            raise InvalidRequest("the key of another request", where="idempotency_key", fix="a new key for each call")
        if isinstance(known, _Answer):
            return known.answer
        return await self._join(key, known or self._begin(key, request, make))

    def _begin(self, key: str, request: bytes, make: Callable[[], Awaitable[bytes]]) -> _Open:
        call = self._open[key] = _Open(request, asyncio.ensure_future(make()))
        call.task.add_done_callback(lambda task: self._end(key, call))
        return call

    async def _join(self, key: str, call: _Open) -> bytes:
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting and not call.task.done():
                call.task.cancel()
                self._close(key, call)

    def _close(self, key: str, call: _Open) -> None:
        """Another call may have the key by now."""
        if self._open.get(key) is call:
            del self._open[key]

    def _end(self, key: str, call: _Open) -> None:
        self._close(key, call)
        if call.task.cancelled() or call.task.exception() is not None or key in self._kept:
            return
        kept = self._kept[key] = _Answer(call.request, call.task.result(), self._clock())
        self._bytes += kept.bytes
        self.forget()

    def forget(self) -> None:
        """Drops the oldest answers, by age and by their bytes."""
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._bytes <= self._max_bytes and self._clock() - oldest.at <= self._seconds:
                return
            self._kept.popitem(last=False)
            self._bytes -= oldest.bytes
