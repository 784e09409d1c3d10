"""Measures a prompt on labelled examples, and compares two measurements on the same ones."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import Progress, PromptScorer
from fedbbpt.tasks.intervals import difference_interval, share_interval
from fedbbpt.tasks.judgement import Judgement, judge
from fedbbpt.tasks.metrics import Confusion, confusion
from fedbbpt.types import Array, LabelledExamples, Output, Scores


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The class that each of B examples was given, and the true one."""

    labels: npt.NDArray[np.int64]
    """The true classes, `[B]`."""
    predicted: npt.NDArray[np.int64]
    """The likeliest classes, `[B]`; below 0 where the PTM's answer names none."""
    classes: int
    """K, the number of the task's classes."""

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right, `[B]`."""
        hits: npt.NDArray[np.bool_] = self.labels == self.predicted
        return hits

    @property
    def confusion(self) -> Confusion:
        """Examples by true and by predicted class (see `tasks.metrics`)."""
        return confusion(self.labels, self.predicted, self.classes)


@dataclass(frozen=True, slots=True)
class Gain:
    """The accuracy of one prompt minus that of another, both measured on the same examples."""

    difference: float
    """A share: 0.05 means five points."""
    interval: tuple[float, float]
    """The 95 % interval of the difference, from the examples on which both differ (see `tasks.intervals`)."""
    examples: int
    only_this: int
    """The number of examples that only this prompt answered right."""
    only_other: int
    """The number of examples that only the other prompt answered right."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The accuracy and loss of one prompt on labelled examples, as far as the PTM's output shows them."""

    accuracy: float | None
    """The share of right answers; None if the PTM gives losses only."""
    loss: float | None
    """The mean cross-entropy in nats; None if the PTM gives classes only."""
    examples: int
    """B, the number of examples."""
    answers: Answers | None = field(default=None, compare=False, repr=False)
    """The answer to each example; None if the PTM gives losses only."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy (Wilson), for examples drawn at random; None without an accuracy."""
        return share_interval(self.accuracy, self.examples)

    @property
    def confusion(self) -> Confusion | None:
        """Examples by true and by predicted class (see `tasks.metrics`); None if the PTM gives losses only."""
        return None if self.answers is None else self.answers.confusion

    def gain_over(self, other: "Measured") -> Gain | None:
        """Returns the difference to another measurement on the same examples; None if the answers are unknown."""
        if self.answers is None or other.answers is None:
            return None
        this, that = self.answers.hits, other.answers.hits
        only_this, only_other = int((this & ~that).sum()), int((that & ~this).sum())
        interval = difference_interval(only_this, only_other, len(this))
        return Gain((only_this - only_other) / len(this), interval, len(this), only_this, only_other)

    @staticmethod
    def of(judgement: Judgement) -> "Measured":
        """Returns the measurement of the only prompt of a judgement, without its answers."""
        accuracy = None if judgement.correct is None else float(judgement.correct[0]) / judgement.examples
        loss = None if judgement.losses is None else float(judgement.losses[0])
        return Measured(accuracy, loss, judgement.examples)

    @staticmethod
    def of_scores(scores: Scores, data: LabelledExamples) -> "Measured":
        """Returns the measurement of one prompt from its scores `[1, B, K]` on labelled examples."""
        return _with_answers(Output.LABEL_LOGITS, scores, data, scores.shape[2])


def evaluate(
    scorer: PromptScorer,
    z: npt.NDArray[np.float32],
    data: LabelledExamples,
    classes: int,
    progress: Progress = lambda queries: None,
) -> Measured:
    """Measures the prompt z `[n]` on labelled examples.

    Args:
        scorer: The model, the task and the space of z.
        z: The prompt.
        data: The examples.
        classes: K, the number of the task's classes.
        progress: Receives the number of further queries that are done.
    """
    output = scorer.card.output
    if output is Output.LOSS_ONLY:
        return Measured.of(scorer.judge(data, z[None], progress))
    found = scorer.scores(data, z[None], progress) if output.scores else scorer.choices(data, z[None], progress)
    return _with_answers(output, found, data, classes)


def _with_answers(output: Output, found: Array, data: LabelledExamples, classes: int) -> Measured:
    """The measurement of one prompt from its scores `[1, B, K]` or its classes `[1, B]`."""
    whole = Measured.of(judge(output, [found], [data.labels]))
    predicted = found[0].argmax(axis=1) if output.scores else found[0]
    if output.scores:
        predicted = np.where(np.isnan(found[0]).any(axis=1), -1, predicted)
    answers = Answers(data.labels, predicted.astype(np.int64), classes)
    return Measured(whole.accuracy, whole.loss, whole.examples, answers)
