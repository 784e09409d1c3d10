"""The engine: handles and their lives, callers, limits, metering."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    MessageTooLarge,
    UnknownExamples,
    UnknownTask,
)
from fedbbpt.interfaces import Job
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.tenants.registry import Tenant
from fedbbpt.ptm.tenants.state import Limits
from fedbbpt.types import (
    Examples,
    LatentPrompts,
    MicroBatch,
    Projection,
    ProjectionKind,
    Prompts,
    Scores,
    TaskSpec,
    TextPrompts,
    Usage,
)

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who was it", "how many films"))
PROMPTS = TextPrompts(("which kind", "what"))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Changed(Fake):
    """A fake whose micro-batches are run by `run`."""

    def run(self, job: Job, batch: MicroBatch) -> Scores:
        return job.run(batch)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[tuple[int, ...]], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        planned = super().job(task, prompts, rows, wanted)
        return PlannedJob(planned.batches, lambda batch: self.run(planned, batch))


class Breaking(Changed):
    """Breaks down once, at its second micro-batch."""

    ran = 0

    def __init__(self) -> None:
        super().__init__(token_budget=1)

    def run(self, job: Job, batch: MicroBatch) -> Scores:
        self.ran += 1
        if self.ran == 2:
            raise TimeoutError
        return super().run(job, batch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def engine(clock: Clock, limits: Limits | None = None) -> tuple[Engine, str]:
    made = Engine(Fake(), clock, limits)
    return made, made.register_task(TASK)


def test_a_handle_lives_as_long_as_it_is_used(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(time_to_live_seconds=10.0))
    used, idle = (ptm.register_examples(task_id, EXAMPLES, room).id for room in (4, 5))
    clock.now = 8.0
    ptm.score(used, PROMPTS)
    clock.now = 16.0
    ptm.score(used, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(idle, PROMPTS)
    assert ptm.handles() == 1  # the idle one is gone


def test_the_least_recently_used_handle_gives_way(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(handles=2))
    first, second = (ptm.register_examples(task_id, EXAMPLES, room).id for room in (4, 5))
    ptm.score(first, PROMPTS)
    third = ptm.register_examples(task_id, EXAMPLES, 6).id
    for kept in (first, third):
        ptm.score(kept, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(second, PROMPTS)


def test_kept_bytes_are_bounded(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(bytes=1000))
    ptm.register_examples(task_id, EXAMPLES, 4)
    ptm.register_examples(task_id, EXAMPLES, 5)
    assert ptm.handles() == 1 and 0 < ptm.kept_bytes <= 1000
    with pytest.raises(InvalidExamples, match="at most 1000"):
        ptm.register_examples(task_id, Examples(tuple(f"{text} {i}" for i in range(2) for text in EXAMPLES.texts)), 4)


def test_a_handle_lives_until_all_who_registered_it_have_released_it(clock: Clock) -> None:
    ptm, task_id = engine(clock)
    one, other = (ptm.register_examples(task_id, EXAMPLES, 4).id for _ in range(2))
    ptm.release(one)
    assert ptm.score(other, PROMPTS).usage.queries == 4
    ptm.release(other)
    with pytest.raises(UnknownExamples):
        ptm.score(other, PROMPTS)


def test_tasks_are_bounded(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(tasks=1))
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id
    ptm.register_task(TaskSpec("{text}", ("x", "y")))
    with pytest.raises(UnknownTask):
        ptm.register_examples(task_id, EXAMPLES, 4)
    ptm.score(handle, PROMPTS)  # what was registered keeps its task


def test_tenants_see_their_own_only(clock: Clock) -> None:
    a, b = Tenant(name="a"), Tenant(name="b")
    ptm = Engine(Fake(), clock, Limits(handles=1), tenants=[a, b])
    task_id = ptm.register_task(TASK, tenant=a)
    with pytest.raises(UnknownTask):
        ptm.register_examples(task_id, EXAMPLES, 4, tenant=b)
    own = ptm.register_examples(task_id, EXAMPLES, 4, tenant=a).id
    assert ptm.register_task(TASK, tenant=b) == task_id
    with pytest.raises(UnknownExamples):
        ptm.score(own, PROMPTS, tenant=b)
    assert ptm.register_examples(task_id, EXAMPLES, 5, tenant=b).id != own
    ptm.release(own, tenant=b)
    assert ptm.score(own, PROMPTS, tenant=a).usage.cached_queries == 0
    assert ptm.usage(tenant=a).queries == 4 and ptm.usage(tenant=b) == ptm.usage() == Usage()
    assert ptm.handles(tenant=a) == ptm.handles(tenant=b) == 1


def test_a_call_that_breaks_pays_for_what_was_computed_only(clock: Clock) -> None:
    ptm = Engine(Breaking(), clock)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    with pytest.raises(TimeoutError):
        ptm.score(handle, PROMPTS)
    used = ptm.usage()
    assert 0 < used.queries < 4 and used.cached_queries == 0
    again = ptm.score(handle, PROMPTS)  # the backend is well again, and what was computed is known
    assert again.usage.cached_queries == used.queries
    assert ptm.usage().tokens == used.tokens + again.usage.tokens
    sound, task_id = engine(clock)
    assert np.array_equal(again.scores, sound.score(sound.register_examples(task_id, EXAMPLES, 4).id, PROMPTS).scores)


def test_repeated_pairs_are_computed_once(clock: Clock) -> None:
    ptm, task_id = engine(clock)
    texts = ("who was it", "how many films", "who was it")
    handle = ptm.register_examples(task_id, Examples(texts), 4).id
    scored = ptm.score(handle, TextPrompts(("which", "what", "which")))
    assert (scored.usage.queries, scored.usage.cached_queries) == (9, 5)
    assert np.array_equal(scored.scores[0], scored.scores[2]) and np.array_equal(
        scored.scores[:, 0], scored.scores[:, 2]
    )
    plain = Engine(Fake(), clock, Limits(cache_bytes=0))
    other = plain.register_examples(plain.register_task(TASK), Examples(texts), 4).id
    for index, text in enumerate(("which", "what", "which")):
        assert np.array_equal(plain.score(other, TextPrompts((text,))).scores[0], scored.scores[index])
    assert ptm.score(handle, TextPrompts(("what",))).usage.cached_queries == 3


def test_fresh_scores_are_computed_all(clock: Clock) -> None:
    ptm, task_id = engine(clock)
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id
    known = ptm.score(handle, PROMPTS)
    begun = ptm.begin(handle, TextPrompts(PROMPTS.texts * 2), fresh=True)
    for batch in begun.scoring.batches:
        begun.scoring.run(batch)
    fresh = ptm.finish(begun)
    assert fresh.usage.cached_queries == 0 and fresh.usage.tokens == 2 * known.usage.tokens
    assert np.array_equal(fresh.scores, np.tile(known.scores, (2, 1, 1)))


def test_time_is_metered_by_the_clock(clock: Clock) -> None:
    class Slow(Changed):
        def run(self, job: Job, batch: MicroBatch) -> Scores:
            clock.now += 3.0
            return job.run(batch)

    ptm = Engine(Slow(), clock)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    assert ptm.score(handle, TextPrompts(("which",))).usage.compute_seconds == 3.0


def test_scores_that_are_no_numbers_never_leave_nor_stay(clock: Clock) -> None:
    class Broken(Changed):
        def run(self, job: Job, batch: MicroBatch) -> Scores:
            scores = job.run(batch)
            scores[batch.prompts == 1] = np.nan
            return scores

    ptm = Engine(Broken(), clock)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    for _ in range(2):
        with pytest.raises(InvalidTensor, match=r"prompts \[1\]"):
            ptm.score(handle, PROMPTS)


def test_an_answer_that_no_message_holds_is_refused_before_the_work(clock: Clock) -> None:
    ptm = Engine(Fake(), clock)
    task_id = ptm.register_task(TaskSpec("{text}", tuple(f"class {k}" for k in range(100))))
    handle = ptm.register_examples(task_id, Examples(tuple(f"text {i}" for i in range(1000))), 4).id
    with pytest.raises(MessageTooLarge, match="fewer prompts"):
        ptm.score(handle, TextPrompts(("a",) * 100))


def test_the_fake_can_be_learnt() -> None:
    """Gradient-free search must have something to find: steps along finite differences lower the cross-entropy."""
    words = {0: ("many", "count", "much"), 1: ("who", "name", "man"), 2: ("where", "land", "city")}
    texts = tuple(f"{word} {filler}" for k in words for word in words[k] for filler in ("is it", "of old", "then"))
    labels = np.repeat(np.arange(3), 9)
    ptm = Engine(Fake(), lambda: 0.0)
    task_id = ptm.register_task(TaskSpec("{prompt} {text}", ("alpha", "beta", "gamma")))
    handle = ptm.register_examples(task_id, Examples(texts), 4).id
    projection = Projection(ProjectionKind.RADEMACHER, 1, 4, 1.0, "sort it")

    def loss(z: np.ndarray) -> np.ndarray:
        logits = ptm.score(handle, LatentPrompts(z.astype(np.float32), projection)).scores.astype(np.float64)
        chosen = logits[:, np.arange(len(labels)), labels]
        losses: np.ndarray = (np.log(np.exp(logits).sum(axis=2)) - chosen).mean(axis=1)
        return losses

    z, step = np.zeros(20), 0.01
    start = loss(z[None])[0]
    for _ in range(60):
        gradient = (loss(z + step * np.eye(20)) - loss(z - step * np.eye(20))) / (2 * step)
        z = z - 4.0 * gradient
    assert start > 0.9 and loss(z[None])[0] < 0.6 * start


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec("{prompt} {text}", tuple(f"class {i}" for i in range(1001))),
        TaskSpec("{prompt} {text}", ("a number", "a person" * 100_000)),
    ],
)
def test_a_task_without_bounds_is_refused_and_not_kept(clock: Clock, task: TaskSpec) -> None:
    ptm, task_id = engine(clock)
    with pytest.raises(InvalidTask, match="at most"):
        ptm.register_task(task)
    assert ptm.register_examples(task_id, EXAMPLES, 4).count == len(EXAMPLES)
