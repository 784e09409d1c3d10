"""Answers by idempotency key: a call that is made again joins the first, or gets its answer, and costs nothing."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fedbbpt.errors import InvalidRequest

MAX_KEY_CHARACTERS = 64


@dataclass(slots=True, eq=False)
class _Entry:
    request: bytes
    """Its digest."""
    task: asyncio.Task[bytes]
    made_at: float
    waiting: int = 0


class Replies:
    """Serialised answers of the last `seconds`, at most `max_bytes` of them. For one event loop; time comes in."""

    def __init__(self, *, seconds: float, max_bytes: int, clock: Callable[[], float]) -> None:
        self._seconds, self._max_bytes, self._clock = seconds, max_bytes, clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def once(self, tenant: str, key: str, request: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `make` gives, or gave. It is given up when nobody waits for it any more; what failed is forgotten.

        Raises InvalidRequest for a key of another request, and whatever `make` raises.
        """
        if not key:
            return await make()
        if len(key) > MAX_KEY_CHARACTERS:
            what, fix = f"{len(key)} characters", f"at most {MAX_KEY_CHARACTERS}"
            raise InvalidRequest(what, where="idempotency_key", fix=fix)
        self._forget()
        entry = self._entries.get((tenant, key))
        if entry is None:
            task = asyncio.ensure_future(make())
            entry = self._entries[tenant, key] = _Entry(request, task, self._clock())
        elif entry.request != request:
            raise InvalidRequest("the key of another request", where="idempotency_key", fix="a new key for each call")
        entry.waiting += 1
        try:
            return await asyncio.shield(entry.task)
        finally:
            entry.waiting -= 1
            failed = entry.task.done() and (entry.task.cancelled() or entry.task.exception() is not None)
            if not entry.waiting and not entry.task.done():
                entry.task.cancel()
                failed = True
            if failed and self._entries.get((tenant, key)) is entry:
                del self._entries[tenant, key]

    def _forget(self) -> None:
        """Drops the oldest answers, by age and by their bytes; calls under way stay."""
        done = [(name, entry) for name, entry in self._entries.items() if entry.task.done()]
        total = sum(len(entry.task.result()) for _, entry in done)
        for name, entry in done:
            if total <= self._max_bytes and self._clock() - entry.made_at <= self._seconds:
                break
            total -= len(entry.task.result())
            del self._entries[name]
