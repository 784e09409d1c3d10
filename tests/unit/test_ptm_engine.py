"""The engine: handles and their lives, callers, limits, metering."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fedbbpt.errors import (
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    MessageTooLarge,
    UnknownExamples,
    UnknownTask,
)
from fedbbpt.ptm.backends.fake import Fake
from fedbbpt.ptm.engine import Engine, Limits
from fedbbpt.types import (
    Examples,
    LatentPrompts,
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


def engine(clock: Clock, limits: Limits | None = None) -> tuple[Engine, str]:
    made = Engine(Fake(), clock, limits)
    return made, made.register_task(TASK)


def test_a_handle_lives_as_long_as_it_is_used(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(time_to_live_seconds=10.0))
    used, idle = (ptm.register_examples(task_id, EXAMPLES, 4).id for _ in range(2))
    clock.now = 8.0
    ptm.score(used, PROMPTS)
    clock.now = 16.0
    ptm.score(used, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(idle, PROMPTS)
    ptm.register_examples(task_id, EXAMPLES, 4)
    assert ptm.handles() == 2  # the idle one is gone


def test_the_least_recently_used_handle_gives_way(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(handles=2))
    first, second = (ptm.register_examples(task_id, EXAMPLES, 4).id for _ in range(2))
    ptm.score(first, PROMPTS)
    third = ptm.register_examples(task_id, EXAMPLES, 4).id
    for kept in (first, third):
        ptm.score(kept, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(second, PROMPTS)


def test_kept_tokens_are_bounded(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(tokens=10))
    assert ptm.register_examples(task_id, EXAMPLES, 4).tokens == 6
    ptm.register_examples(task_id, EXAMPLES, 4)
    assert ptm.handles() == 1
    with pytest.raises(InvalidExamples, match="12 tokens"):
        ptm.register_examples(task_id, Examples(EXAMPLES.texts * 2), 4)


def test_tasks_are_bounded(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(tasks=1))
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id
    ptm.register_task(TaskSpec("{text}", ("x", "y")))
    with pytest.raises(UnknownTask):
        ptm.register_examples(task_id, EXAMPLES, 4)
    ptm.score(handle, PROMPTS)  # what was registered keeps its task


def test_callers_see_their_own_only(clock: Clock) -> None:
    ptm, task_id = engine(clock, Limits(handles=1))
    own = ptm.register_examples(task_id, EXAMPLES, 4, caller="a").id
    ptm.register_examples(task_id, EXAMPLES, 4, caller="b")
    ptm.release(own, caller="b")
    with pytest.raises(UnknownExamples):
        ptm.score(own, PROMPTS, caller="b")
    assert ptm.score(own, PROMPTS, caller="a").usage.queries == 4
    assert ptm.usage(caller="a").queries == 4 and ptm.usage(caller="b") == ptm.usage() == Usage()
    assert ptm.handles(caller="a") == ptm.handles(caller="b") == 1


def test_stopped_work_costs_nothing(clock: Clock) -> None:
    ptm, task_id = engine(clock)
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        ptm.score(handle, PROMPTS, check=stop)
    assert ptm.usage() == Usage()


def test_time_is_metered_by_the_clock(clock: Clock) -> None:
    class Slow(Fake):
        def score(
            self, task: TaskSpec, prompts: Prompts, rows: Sequence[tuple[int, ...]], check: Callable[[], None]
        ) -> tuple[Scores, int]:
            clock.now += 3.0
            return super().score(task, prompts, rows, check)

    ptm = Engine(Slow(), clock)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    assert ptm.score(handle, PROMPTS).usage.compute_seconds == 3.0


def test_scores_that_are_no_numbers_never_leave(clock: Clock) -> None:
    class Broken(Fake):
        def score(
            self, task: TaskSpec, prompts: Prompts, rows: Sequence[tuple[int, ...]], check: Callable[[], None]
        ) -> tuple[Scores, int]:
            scores, tokens = super().score(task, prompts, rows, check)
            scores[1, 0, 0] = np.nan
            return scores, tokens

    ptm = Engine(Broken(), clock)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
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
