"""Answers by idempotency key: a call that is made again joins the first, or gets its answer, and costs nothing.

Of one that nobody waited for the micro-batches that had begun are paid: made again, it pays for the others.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fedbbpt.errors import InvalidRequest

MAX_KEY_CHARACTERS = 64
OVERHEAD_BYTES = 500
"""Of Python, for each answer and its key."""


@dataclass(slots=True)
class Attempts:
    """At one call, so far."""

    paid: int = 0
    """Queries that they were charged for, without an answer."""


@dataclass(slots=True, eq=False)
class _Open:
    """A call under way."""

    request: bytes
    """Its digest."""
    attempts: Attempts
    task: asyncio.Task[bytes]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Ended:
    request: bytes
    attempts: Attempts
    answer: bytes | None
    """None where it was given up, or failed."""
    at: float

    @property
    def bytes(self) -> int:
        return len(self.answer or b"") + OVERHEAD_BYTES


class Replies:
    """One tenant's serialised answers of the last `seconds`, at most `max_bytes` of them.

    For one event loop; time comes in.
    """

    def __init__(self, *, seconds: float, max_bytes: int, clock: Callable[[], float]) -> None:
        self._seconds, self._max_bytes, self._clock = seconds, max_bytes, clock
        self._open: dict[str, _Open] = {}
        self._ended: OrderedDict[str, _Ended] = OrderedDict()  # the oldest first
        self._bytes = 0

    async def once(self, key: str, request: bytes, make: Callable[[Attempts], Awaitable[bytes]]) -> bytes:
        """What `make` gives, or gave. It is cancelled when nobody waits for it any more, and may give an answer still.

        What failed is made again when it is asked for, with what `make` has said of the attempts before. Raises
        InvalidRequest for a key of another request, and whatever `make` raises.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            what, fix = f"{len(key)} characters", f"at most {MAX_KEY_CHARACTERS}"
            raise InvalidRequest(what, where="idempotency_key", fix=fix)
        while (call := self._open.get(key)) is not None and call.waiting == 0 and call.request == request:
            await asyncio.wait({call.task})  # it was given up, and comes to its end
            await asyncio.sleep(0)  # as does `_end`
        self.forget()
        ended = self._ended.get(key)
        known = self._open.get(key) or ended
        if known is not None and known.request != request:
            raise InvalidRequest("the key of another request", where="idempotency_key", fix="a new key for each call")
        if isinstance(known, _Open):
            return await self._join(known)
        if ended is not None and ended.answer is not None:
            return ended.answer
        return await self._join(self._begin(key, request, ended.attempts if ended else Attempts(), make))

    def _begin(
        self, key: str, request: bytes, attempts: Attempts, make: Callable[[Attempts], Awaitable[bytes]]
    ) -> _Open:
        call = self._open[key] = _Open(request, attempts, asyncio.ensure_future(make(attempts)))
        call.task.add_done_callback(lambda task: self._end(key, call))
        return call

    async def _join(self, call: _Open) -> bytes:
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting and not call.task.done():
                call.task.cancel()

    def _end(self, key: str, call: _Open) -> None:
        del self._open[key]
        failed = call.task.cancelled() or call.task.exception() is not None
        if before := self._ended.pop(key, None):
            self._bytes -= before.bytes
        if failed and not call.attempts.paid:
            return
        answer = None if failed else call.task.result()
        ended = self._ended[key] = _Ended(call.request, call.attempts, answer, self._clock())
        self._bytes += ended.bytes
        self.forget()

    def forget(self) -> None:
        """Drops the oldest answers, by age and by their bytes."""
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if self._bytes <= self._max_bytes and self._clock() - oldest.at <= self._seconds:
                return
            self._ended.popitem(last=False)
            self._bytes -= oldest.bytes
