"""How good a prompt is on labelled examples that nobody tuned on, beside the controls that it has to beat."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.data.images import fit
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks import bias
from fedbbpt.tasks.criterion import accuracy, cross_entropy
from fedbbpt.types import Examples, ImagePrompts, LabelledExamples, Prompts, Scores, TaskSpec, TextPrompts

ROWS = 256
"""Examples of one handle, and so how often progress is told."""


def no_prompt(examples: Examples) -> Prompts:
    """The inputs as they are."""
    if examples.images is None:
        return TextPrompts(("",))
    return ImagePrompts(np.zeros((1, 1, *examples.images.shape[1:]), np.float32))


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

    def plainly(data: LabelledExamples) -> Scores:
        return score(ptm, task_id, space, no_prompt, data, progress)

    def of(z: npt.NDArray[np.float32]) -> Measured:
        return measured(score_z(ptm, task_id, space, z, test, progress), test)

    plain, shots = plainly(test), plainly(train)
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

    def prompts(examples: Examples) -> Prompts:
        return space.prompts(z[None], examples)

    return space.shifted(score(ptm, task_id, space, prompts, data, progress), z[None])


def score(
    ptm: Ptm,
    task_id: str,
    space: PromptSpace,
    prompts: Callable[[Examples], Prompts],
    data: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """`[P, B, K]`, some rows at a time; images are brought to the model's shape."""
    parts: list[Scores] = []
    card = ptm.describe()
    for rows in _batches(len(data), min(ROWS, card.max_pairs)):
        batch = fit(data.examples.take(rows), card.image_shape)
        handle = ptm.register_examples(task_id, batch, space.prompt_tokens)
        try:
            parts.append(ptm.score(handle.id, prompts(batch)).scores)
        finally:
            ptm.release(handle.id)
        progress(len(batch))
    return np.concatenate(parts, axis=1)


def _batches(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
