"""Threads that compute micro-batches, the fairest next.

Between two micro-batches a call can be given up: what it still has waiting is dropped, what runs comes to its end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

from fedbbpt.ptm.scheduling.fair_queue import FairQueue
from fedbbpt.types import MicroBatch


class Work(Protocol):
    """A call's pairs."""

    @property
    def batches(self) -> Sequence[MicroBatch]: ...

    def run(self, batch: MicroBatch) -> None: ...


@dataclass(eq=False, slots=True)
class _Call:
    tenant: str
    work: Work
    done: Callable[[Exception | None], None]
    open: int
    """Micro-batches that wait or run."""
    error: Exception | None = None


class Workers:
    """`threads` of them, over one FairQueue."""

    def __init__(self, threads: int, *, quantum: int, max_tokens: int) -> None:
        self._queue: FairQueue[tuple[_Call, MicroBatch]] = FairQueue(quantum=quantum, max_tokens=max_tokens)
        self._changed = Condition()
        self._closed = False
        self._threads = [Thread(target=self._serve, name=f"forward-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def tokens(self) -> int:
        """All that wait."""
        with self._changed:
            return self._queue.tokens

    def submit(self, tenant: str, work: Work, done: Callable[[Exception | None], None]) -> Callable[[], None]:
        """Has the work done; returns what gives it up. Raises Overloaded.

        `done` is called once, by any thread, when none of its micro-batches waits or runs: with None, or with the first
        error, after which the rest is dropped.
        """
        call = _Call(tenant, work, done, len(work.batches))
        if not call.open:
            done(None)
            return lambda: None
        with self._changed:
            self._queue.push(tenant, [(batch.tokens, (call, batch)) for batch in work.batches])
            self._changed.notify(call.open)
        return lambda: self._end(call, None, ran=0)

    def close(self) -> None:
        """Lets running micro-batches end, and no other begin."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (found := None if self._closed else self._queue.pop()) is None:
                    if self._closed:
                        return
                    self._changed.wait()
            call, batch = found
            try:
                call.work.run(batch)
            except Exception as error:  # whose it is, the caller learns
                self._end(call, error, ran=1)
            else:
                self._end(call, None, ran=1, drop=False)

    def _end(self, call: _Call, error: Exception | None, *, ran: int, drop: bool = True) -> None:
        """Counts what ran, and drops the rest where there was an error or nobody waits."""
        with self._changed:
            was_open = call.open
            call.error = call.error or error
            dropped = self._queue.drop(call.tenant, lambda piece: piece[0] is call) if drop else 0
            call.open -= ran + dropped
            finished = was_open > 0 and call.open == 0
        if finished:
            call.done(call.error)
