"""How good a prompt is on labelled examples that nobody tuned on, beside the controls that it has to beat."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.data.images import fit
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks import bias
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.tasks.sizes import examples_of_a_handle
from fedbbpt.types import (
    Array,
    Examples,
    ImagePrompts,
    LabelledExamples,
    Output,
    Prompts,
    Scores,
    TaskSpec,
    TextPrompts,
)

ROWS = 256
"""The most examples of one handle, and so how often progress is told."""


def no_prompt(examples: Examples) -> Prompts:
    """The inputs as they are."""
    if examples.images is None:
        return TextPrompts(("",))
    return ImagePrompts(np.zeros((1, 1, *examples.images.shape[1:]), np.float32))


@dataclass(frozen=True, slots=True)
class Measured:
    """As much as the PTM's output lets one know."""

    accuracy: float | None
    """None where it gives losses only."""
    loss: float | None
    """Mean cross-entropy in nats; None where it gives classes only."""
    queries: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test set under four conditions."""

    without: Measured
    """The template alone, no prompt: zero-shot."""
    start: Measured
    """The prompt that the search began with, z = 0."""
    bias: Measured | None
    """No prompt, one offset for each class, fitted on the pooled training examples; None where there are no scores."""
    tuned: Measured

    @property
    def queries(self) -> int:
        conditions = (self.without, self.start, self.bias, self.tuned)
        return sum(measured.queries for measured in conditions if measured is not None)


def compare(
    ptm: Ptm,
    task: TaskSpec,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    train: LabelledExamples,
    test: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Tells `progress` how many of the queries are done: 3 x test + train, or 3 x test where the PTM gives no scores.

    Raises OutputWithheld where it gives none and the space has offsets.
    """
    task_id = ptm.register_task(task)
    output = ptm.describe().output
    if not output.scores:
        if space.offsets:
            require_scores(output, "a prompt with offsets")

        def asked(prompts: Callable[[Examples], Prompts]) -> Measured:
            answers = list(_answers(ptm, task_id, space, prompts, test, progress))
            found = judge(output, [answer for answer, _ in answers], [part.labels for _, part in answers])
            return _measured(found)

        return Comparison(
            without=asked(no_prompt),
            start=asked(lambda examples: space.prompts(np.zeros_like(z)[None], examples)),
            bias=None,
            tuned=asked(lambda examples: space.prompts(z[None], examples)),
        )

    def of(z: npt.NDArray[np.float32]) -> Measured:
        return measured(score_z(ptm, task_id, space, z, test, progress), test)

    plain, shots = (score(ptm, task_id, space, no_prompt, data, progress) for data in (test, train))
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
    return _measured(judge(Output.LABEL_LOGITS, [scores], [data.labels]))


def _measured(found: Judgement) -> Measured:
    """Of one prompt."""
    accuracy = None if found.correct is None else float(found.correct[0]) / found.examples
    loss = None if found.losses is None else float(found.losses[0])
    return Measured(accuracy, loss, found.examples)


def score_z(
    ptm: Ptm,
    task_id: str,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    data: LabelledExamples,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """What z `[dim]` stands for, prompt and offsets: `[1, B, K]`. Raises OutputWithheld."""

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
    """`[P, B, K]`, some rows at a time; images are brought to the model's shape. Raises OutputWithheld."""
    require_scores(ptm.describe().output, "this")
    return np.concatenate([answer for answer, _ in _answers(ptm, task_id, space, prompts, data, progress)], axis=1)


def _answers(
    ptm: Ptm,
    task_id: str,
    space: PromptSpace,
    prompts: Callable[[Examples], Prompts],
    data: LabelledExamples,
    progress: Callable[[int], None],
) -> Iterator[tuple[Array, LabelledExamples]]:
    """Of one part of the data after the other, all about as long."""
    card = ptm.describe()
    data = LabelledExamples(fit(data.examples, card.image_shape), data.labels)
    number = math.ceil(len(data) / min(ROWS, examples_of_a_handle(card, data.examples)))
    for rows in np.array_split(np.arange(len(data)), number):
        part = data.take(rows)
        labels = part.labels if card.output is Output.LOSS_ONLY else None
        handle = ptm.register_examples(task_id, part.examples, space.prompt_tokens, None, labels)
        try:
            answer = ptm.score(handle.id, prompts(part.examples)).answer
        finally:
            ptm.release(handle.id)
        yield answer, part
        progress(len(part))
