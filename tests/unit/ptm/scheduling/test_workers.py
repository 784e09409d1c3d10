"""Workers run every micro-batch once, end only the call that fails, and begin nothing of a cancelled call."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from fedbbpt.errors import Overloaded
from fedbbpt.ptm.scheduling.workers import Workers
from fedbbpt.types import MicroBatch


class Work:
    """Micro-batches of ten tokens, which record that they ran."""

    def __init__(self, count: int, run: Callable[[int], None] = lambda index: None) -> None:
        self.batches: Sequence[MicroBatch] = [
            MicroBatch(np.array([0]), np.array([index]), 10) for index in range(count)
        ]
        self._run, self.ran = run, list[int]()

    def run(self, batch: MicroBatch) -> None:
        index = int(batch.rows[0])
        self._run(index)
        self.ran.append(index)


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(2, quantum=10, max_tokens=100)
    yield made
    made.close()


def submit(workers: Workers, work: Work, tenant: str = "a") -> tuple["Future[None]", Callable[[], None]]:
    ended: Future[None] = Future()

    def done(error: Exception | None) -> None:
        if error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    return ended, workers.submit(tenant, work, done)


def test_every_micro_batch_runs_once(workers: Workers) -> None:
    works = [Work(9), Work(1), Work(0)]
    for (ended, _), work in [(submit(workers, work), work) for work in works]:
        ended.result(60.0)
        assert sorted(work.ran) == list(range(len(work.batches)))
    assert workers.tokens == 0


def test_error_ends_its_own_call_only(workers: Workers) -> None:
    def fail(index: int) -> None:
        if index == 0:
            raise ValueError("broken")

    broken, sound = Work(8, fail), Work(8)
    failed, ended = submit(workers, broken)[0], submit(workers, sound, "b")[0]
    with pytest.raises(ValueError, match="broken"):
        failed.result(60.0)
    ended.result(60.0)
    assert len(sound.ran) == 8 and 0 not in broken.ran
    submit(workers, again := Work(2))[0].result(60.0)
    assert sorted(again.ran) == [0, 1]


def test_cancelled_call_begins_no_further_micro_batch(workers: Workers) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)

    def wait(index: int) -> None:
        entered.release()
        assert gate.wait(200.0)

    work = Work(10, wait)
    ended, cancel = submit(workers, work)
    for _ in range(2):
        assert entered.acquire(timeout=200.0)
    cancel()
    cancel()
    assert workers.tokens == 0 and not ended.done()  # two still run
    gate.set()
    ended.result(60.0)
    assert sorted(work.ran) == [0, 1]
    cancel()  # too late, and harmless


def test_only_the_tenant_with_a_full_queue_is_rejected(workers: Workers) -> None:
    gate = threading.Event()

    def wait(index: int) -> None:
        assert gate.wait(200.0)

    works = [Work(12, wait) for _ in range(3)]
    first, _ = submit(workers, works[0])
    with pytest.raises(Overloaded):
        submit(workers, works[1])
    other, _ = submit(workers, works[2], "b")
    gate.set()
    first.result(60.0)
    other.result(60.0)
    assert works[1].ran == []
