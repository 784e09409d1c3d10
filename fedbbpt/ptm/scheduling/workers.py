"""Threads that compute micro-batches in the order of a fair queue.

A call can be cancelled between two micro-batches: those that wait are dropped, and those that run are finished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

from fedbbpt.ptm.scheduling.fair_queue import FairQueue
from fedbbpt.types import MicroBatch


class Work(Protocol):
    """The work of one call."""

    @property
    def batches(self) -> Sequence[MicroBatch]:
        """The micro-batches, with their tokens."""
        ...

    def run(self, batch: MicroBatch) -> None:
        """Computes a micro-batch. Called by several threads at once."""
        ...


@dataclass(eq=False, slots=True)
class _Call:
    tenant: str
    work: Work
    done: Callable[[Exception | None], None]
    open: int
    """Number of micro-batches that wait or run."""
    error: Exception | None = None


class Workers:
    """A pool of threads that serve one `FairQueue`. Thread-safe."""

    def __init__(self, threads: int, *, quantum: int, max_tokens: int) -> None:
        """Starts the threads. `quantum` and `max_tokens` are those of `FairQueue`."""
        self._queue: FairQueue[tuple[_Call, MicroBatch]] = FairQueue(quantum=quantum, max_tokens=max_tokens)
        self._changed = Condition()
        self._closed = False
        self._threads = [Thread(target=self._serve, name=f"forward-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        with self._changed:
            return self._queue.tokens

    def submit(self, tenant: str, work: Work, done: Callable[[Exception | None], None]) -> Callable[[], None]:
        """Queues the micro-batches of a call, and returns a function that cancels it.

        Args:
            tenant: The name of the tenant whose turn the work takes.
            work: The call's work.
            done: Called once, in any thread, when no micro-batch of the call waits or runs any more: with None, or with
                the first error, after which the remaining micro-batches are dropped.

        Raises:
            Overloaded: Too many tokens of the tenant wait already.
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
        """Ends the threads after the micro-batches that are running."""
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
            except Exception as error:  # passed on to the caller by `done`
                self._end(call, error, ran=1)
            else:
                self._end(call, None, ran=1, drop=False)

    def _end(self, call: _Call, error: Exception | None, *, ran: int, drop: bool = True) -> None:
        """Counts `ran` micro-batches as finished, and drops those that wait if `drop` is true."""
        with self._changed:
            was_open = call.open
            call.error = call.error or error
            dropped = self._queue.drop(call.tenant, lambda item: item[0] is call) if drop else 0
            call.open -= ran + dropped
            finished = was_open > 0 and call.open == 0
        if finished:
            call.done(call.error)
