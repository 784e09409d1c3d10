"""Measures a tuned prompt on test examples, next to the baselines that it has to beat."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import Progress, PromptScorer
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.tasks.metrics import Confusion, accuracy, confusion, wilson_interval
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.types import LabelledExamples, Output, Scores, TaskSpec


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
        return None if self.accuracy is None else wilson_interval(round(self.accuracy * self.queries), self.queries)

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Four measurements on the same test examples."""

    without: Measured
    """The template alone, without a prompt: zero-shot."""
    start: Measured
    """The prompt that the search began with, z = 0."""
    offsets: Measured | None
    """No prompt, but one offset for each class, fitted on all training examples; None if the PTM gives no scores."""
    tuned: Measured
    queries: int = field(compare=False)
    """The queries of all measurements together."""


def compare(
    ptm: Ptm,
    task: TaskSpec,
    space: PromptSpace,
    z: npt.NDArray[np.float32],
    train: LabelledExamples,
    test: LabelledExamples,
    progress: Progress = lambda queries: None,
) -> Comparison:
    """Measures the prompt z `[n]` and its baselines on test examples.

    The comparison costs 3 x test + train queries, or 3 x test if the PTM gives no scores. A readout costs one for each
    of its prompts.

    Args:
        ptm: The model to query.
        task: The template, the class texts, and after them the further columns of a readout.
        space: The space of z.
        z: The tuned prompt.
        train: The training examples of all clients, on which the offsets of the baseline are fitted.
        test: Examples that were not used for tuning.
        progress: Receives the number of further queries that are done.

    Raises:
        OutputWithheld: The PTM gives no scores, and the space has offsets.
    """
    classes = space.classes if isinstance(space, ReadoutSpace) else len(task.classes)
    prompted = PromptScorer(ptm, task, space)
    plain = PromptScorer(ptm, task.of_classes(classes), NoPrompt(space.prompt_tokens))
    start, tuned = np.zeros_like(z)[None], z[None]

    def queries() -> int:
        return prompted.queries + plain.queries

    if not prompted.card.output.scores:
        if space.offsets:
            require_scores(prompted.card.output, "a prompt with offsets")
        return Comparison(
            without=Measured.of(plain.judge(test, NoPrompt.Z, progress)),
            start=Measured.of(prompted.judge(test, start, progress)),
            offsets=None,
            tuned=Measured.of(prompted.judge(test, tuned, progress)),
            queries=queries(),
        )
    scores, train_scores = (plain.scores(data, NoPrompt.Z, progress) for data in (test, train))
    offsets = choose_offsets(train_scores[0], train.labels).astype(np.float32)
    shifted = Measured.of_scores(scores + offsets, test)
    return Comparison(
        without=Measured.of_scores(scores, test),
        start=Measured.of(prompted.judge(test, start, progress)),
        offsets=Measured(shifted.accuracy, shifted.loss, len(train)),
        tuned=Measured.of(prompted.judge(test, tuned, progress)),
        queries=queries(),
    )
