"""Measures a prompt on labelled examples."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import Progress, PromptScorer
from fedbbpt.tasks.intervals import accuracy_interval
from fedbbpt.tasks.judgement import Judgement, judge
from fedbbpt.tasks.metrics import Confusion, accuracy, confusion
from fedbbpt.types import LabelledExamples, Output, Scores


@dataclass(frozen=True, slots=True)
class Measured:
    """The accuracy and loss of one prompt on labelled examples, as far as the PTM's output shows them."""

    accuracy: float | None
    """The share of right answers; None if the PTM gives losses only."""
    loss: float | None
    """The mean cross-entropy in nats; None if the PTM gives classes only."""
    queries: int
    """The number of examples."""
    confusion: Confusion | None = field(default=None, compare=False)
    """Examples by true and by predicted class (see `tasks.metrics`); None if the PTM gives losses only, or if nobody
    asked for it."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy (Wilson), for examples drawn at random; None without an accuracy."""
        return None if self.accuracy is None else accuracy_interval(round(self.accuracy * self.queries), self.queries)

    @staticmethod
    def of(judgement: Judgement) -> "Measured":
        """Returns the measurement of the only prompt of a judgement."""
        accuracy = None if judgement.correct is None else float(judgement.correct[0]) / judgement.examples
        loss = None if judgement.losses is None else float(judgement.losses[0])
        return Measured(accuracy, loss, judgement.examples)

    @staticmethod
    def of_scores(scores: Scores, data: LabelledExamples) -> "Measured":
        """Returns the measurement of one prompt from its scores `[1, B, K]` on labelled examples."""
        return Measured.of(judge(Output.LABEL_LOGITS, [scores], [data.labels]))


def evaluate(
    scorer: PromptScorer,
    z: npt.NDArray[np.float32],
    data: LabelledExamples,
    classes: int,
    progress: Progress = lambda queries: None,
) -> Measured:
    """Measures the prompt z `[n]` on labelled examples, with its confusion matrix unless the PTM gives losses only.

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
    answers = scorer.scores(data, z[None], progress) if output.scores else scorer.choices(data, z[None], progress)
    whole = Measured.of(judge(output, [answers], [data.labels]))
    predicted = answers[0].argmax(axis=1) if output.scores else answers[0]
    if output.scores:
        predicted = np.where(np.isnan(answers[0]).any(axis=1), -1, predicted)
    counts = confusion(data.labels, predicted.astype(np.int64), classes)
    return replace(whole, accuracy=accuracy(counts), confusion=counts)
