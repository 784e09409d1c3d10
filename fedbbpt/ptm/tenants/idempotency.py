"""Replies by idempotency key: a call that is repeated joins the first one or gets its reply, and costs nothing.

If all callers of a call have gone away, the tenant pays for the micro-batches that had begun; repeating the call then
costs only the remaining ones.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from fedbbpt.errors import InvalidRequest
from fedbbpt.limits import MAX_KEY_CHARACTERS

OVERHEAD_BYTES = 500
"""Estimated memory of a finished call besides its reply."""


@dataclass(slots=True)
class Attempts:
    """The attempts at one call so far."""

    charged_queries: int = 0
    """Queries that failed or cancelled attempts were charged for."""


Compute: TypeAlias = Callable[[Attempts], Awaitable[bytes]]
"""Computes the reply of a call and returns it serialised. Adds the queries that it charges in vain to the attempts."""


@dataclass(slots=True, eq=False)
class _RunningCall:
    request: bytes
    """Digest of the request."""
    attempts: Attempts
    task: asyncio.Task[bytes]
    waiting: int = 0
    """Callers that wait for the reply."""


@dataclass(frozen=True, slots=True)
class _FinishedCall:
    request: bytes
    """Digest of the request."""
    attempts: Attempts
    reply: bytes | None
    """None if the call failed or was cancelled."""
    at: float

    @property
    def bytes(self) -> int:
        """Estimated memory."""
        return len(self.reply or b"") + OVERHEAD_BYTES


class ReplyCache:
    """One tenant's serialised replies of the last `seconds`, at most `max_bytes` of them. For one event loop."""

    def __init__(self, *, seconds: float, max_bytes: int, clock: Callable[[], float]) -> None:
        self._seconds, self._max_bytes, self._clock = seconds, max_bytes, clock
        self._running: dict[str, _RunningCall] = {}
        self._finished: OrderedDict[str, _FinishedCall] = OrderedDict()  # oldest first
        self._bytes = 0

    async def get_or_compute(self, key: str, request: bytes, compute: Compute) -> bytes:
        """Returns the reply to the request with this key, which is computed and serialised only once.

        `compute` is cancelled when no caller waits any more; it may still return a reply then. After a failure, the
        next call with the key computes again and is given the earlier attempts.

        Args:
            key: The idempotency key, at most MAX_KEY_CHARACTERS long.
            request: A digest of the request.
            compute: Called at most once at a time.

        Raises:
            InvalidRequest: The key is too long, or was used for another request.
            Exception: Any error of `compute`.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            what, fix = f"{len(key)} characters", f"at most {MAX_KEY_CHARACTERS}"
            raise InvalidRequest(what, where="idempotency_key", fix=fix)
        while (call := self._running.get(key)) is not None and call.waiting == 0 and call.request == request:
            await asyncio.wait({call.task})  # it was cancelled and is about to end
            await asyncio.sleep(0)  # let its done callback run
        self.drop_expired()
        finished = self._finished.get(key)
        known = self._running.get(key) or finished
        if known is not None and known.request != request:
            what, fix = "the key was used for another request", "a new key for each call"
            raise InvalidRequest(what, where="idempotency_key", fix=fix)
        if isinstance(known, _RunningCall):
            return await self._join(known)
        if finished is not None and finished.reply is not None:
            return finished.reply
        attempts = finished.attempts if finished else Attempts()
        return await self._join(self._start(key, request, attempts, compute))

    def _start(self, key: str, request: bytes, attempts: Attempts, compute: Compute) -> _RunningCall:
        call = self._running[key] = _RunningCall(request, attempts, asyncio.ensure_future(compute(attempts)))
        call.task.add_done_callback(lambda task: self._finish(key, call))
        return call

    async def _join(self, call: _RunningCall) -> bytes:
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting and not call.task.done():
                call.task.cancel()

    def _finish(self, key: str, call: _RunningCall) -> None:
        del self._running[key]
        failed = call.task.cancelled() or call.task.exception() is not None
        if before := self._finished.pop(key, None):
            self._bytes -= before.bytes
        if failed and not call.attempts.charged_queries:
            return
        reply = None if failed else call.task.result()
        finished = self._finished[key] = _FinishedCall(call.request, call.attempts, reply, self._clock())
        self._bytes += finished.bytes
        self.drop_expired()

    def drop_expired(self) -> None:
        """Drops the oldest replies while they are too old, or too large together."""
        while self._finished:
            oldest = next(iter(self._finished.values()))
            if self._bytes <= self._max_bytes and self._clock() - oldest.at <= self._seconds:
                return
            self._finished.popitem(last=False)
            self._bytes -= oldest.bytes
