"""How good a prompt is on labelled examples that nobody tuned on, beside the controls that it has to beat."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.interfaces import Ptm
from fedbbpt.tasks import bias
from fedbbpt.tasks.criterion import accuracy, cross_entropy
from fedbbpt.types import (
    LabelledExamples,
    Prompts,
    PromptSpace,
    Scores,
    TaskSpec,
    TextPrompts,
)

ROWS = 256
"""Examples of one handle, and so how often progress is told."""

NO_PROMPT = TextPrompts(("",))


@dataclass(frozen=True, slots=True)
class Measured:
    accuracy: float
    loss: float
    """Mean cross-entropy in nats."""
    queries: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test set under four conditions."""

    without: Measured
    """The template alone, no prompt: zero-shot."""
    start: Measured
    """The prompt that the search began with, z = 0."""
    bias: Measured
    """No prompt, one offset for each class, fitted on the pooled training examples."""
    tuned: Measured

    @property
    def queries(self) -> int:
        return self.without.queries + self.start.queries + self.bias.queries + self.tuned.queries


def compare(
    ptm: Ptm,
    task: TaskSpec,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    train: LabelledExamples,
    test: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Tells `progress` how many of the 3 x test + train queries are done."""
    task_id = ptm.register_task(task)

    def scores(prompts: Prompts, data: LabelledExamples) -> Scores:
        return score(ptm, task_id, space, prompts, data, progress)

    def of(z: npt.NDArray[np.float32]) -> Measured:
        return measured(score_z(ptm, task_id, space, z, test, progress), test)

    plain, shots = scores(NO_PROMPT, test), scores(NO_PROMPT, train)
    offsets = bias.fit(shots[0], train.labels).astype(np.float32)
    shifted = measured(plain + offsets, test)
    return Comparison(
        without=measured(plain, test),
        start=of(np.zeros_like(z)),
        bias=Measured(shifted.accuracy, shifted.loss, len(train)),
        tuned=of(z),
    )


def measured(scores: Scores, data: LabelledExamples) -> Measured:
    """`[1, B, K]` against labels `[B]`."""
    return Measured(
        float(accuracy(scores, data.labels)[0]), float(cross_entropy(scores, data.labels)[0]), scores.shape[1]
    )


def score_z(
    ptm: Ptm,
    task_id: str,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    data: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """What z `[dim]` stands for, prompt and offsets: `[1, B, K]`."""
    return space.shifted(score(ptm, task_id, space, space.prompts(z[None]), data, progress), z[None])


def score(
    ptm: Ptm,
    task_id: str,
    space: PromptSpace,
    prompts: Prompts,
    data: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """`[P, B, K]`, some rows at a time."""
    parts: list[Scores] = []
    for rows in _batches(len(data)):
        batch = data.take(rows)
        handle = ptm.register_examples(task_id, batch.examples, space.projection.tokens)
        try:
            parts.append(ptm.score(handle.id, prompts).scores)
        finally:
            ptm.release(handle.id)
        progress(len(batch))
    return np.concatenate(parts, axis=1)


def _batches(count: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, count, ROWS):
        yield np.arange(start, min(start + ROWS, count))
