"""Compares wordings of a task, before anything is tuned, on labelled training examples.

The accuracy with fitted offsets is cross-fitted: the examples are dealt out to up to five folds, class by class, and
each fold is measured with the offsets (`tasks.offsets`) that were fitted on the others. No example is measured with
offsets that it has helped to fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.client.asking import Progress, PromptScorer
from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.federation.evaluation import Measured
from fedbbpt.host.progress import progress
from fedbbpt.interfaces import Ptm
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.types import LabelledExamples, Scores, TaskSpec

MOST_FOLDS = 5
FEWEST_PER_CLASS = 2
"""Examples of each class, on average, below which a comparison says nothing."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The measurement of one wording without any prompt."""

    wording: TaskSpec
    measured: Measured
    """Zero-shot accuracy and loss, as far as the PTM's output shows them."""
    fitted: float | None
    """Accuracy with cross-fitted offsets; None if the PTM gives no scores."""

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sorts the best first: by accuracy with offsets, then zero-shot accuracy, then loss; what is unknown last."""
        accuracy, loss = self.measured.accuracy, self.measured.loss
        return (
            np.inf if self.fitted is None else -self.fitted,
            np.inf if accuracy is None else -accuracy,
            np.inf if loss is None else loss,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A wording that the model cannot score."""

    wording: TaskSpec
    reason: str


@dataclass(frozen=True, slots=True)
class WordingComparison:
    """The wordings that were tried, the best first, and those that were refused."""

    tried: tuple[Tried, ...]
    refused: tuple[Refused, ...]
    examples: int
    """Labelled examples on which each wording was measured."""
    queries: int


def compare_wordings(
    ptm: Ptm,
    wordings: Sequence[TaskSpec],
    data: LabelledExamples,
    *,
    room: int,
    limit: int,
    seed: int = 0,
) -> WordingComparison:
    """Scores wordings on the same labelled examples, and shows the progress.

    Args:
        ptm: The model to query.
        wordings: Templates with class texts.
        data: Training examples. As many are used as `limit` allows, of every class alike.
        room: Tokens that texts leave free for the job's prompt.
        limit: The most queries of all wordings together.
        seed: Determines which examples are used, and their folds.

    Raises:
        InvalidInput: The limit is too low to compare the wordings, or the model can score none of them.
    """
    usable, refused = list[tuple[TaskSpec, PromptScorer]](), list[Refused]()
    for wording in dict.fromkeys(wordings):
        scorer = PromptScorer(ptm, wording, NoPrompt(room))
        try:
            ptm.register_task(wording)
            usable.append((wording, scorer))
        except InvalidTask as error:
            refused.append(Refused(wording, str(error)))
    if not usable:
        reasons = "; ".join(dict.fromkeys(one.reason for one in refused[:3]))
        raise InvalidInput(f"the model can score none of the wordings: {reasons}", where="wordings", fix="other ones")
    classes = len(usable[0][0].classes)
    count = min(len(data), limit // len(usable))
    if count < FEWEST_PER_CLASS * classes:
        needed = FEWEST_PER_CLASS * classes
        what = f"{count} examples for {classes} classes are too few to compare {len(usable)} wordings"
        fix = f"at least {needed * len(usable)}" if len(data) >= needed else f"at least {needed} training examples"
        raise InvalidInput(what, where="--limit" if len(data) >= needed else "data", fix=fix)
    used = data.take(sample_evenly(data.labels, count, seed))
    with progress("asking the model", count * len(usable), "queries") as advance:
        tried = [_try(wording, scorer, used, seed, advance) for wording, scorer in usable]
    queries = sum(scorer.queries for _, scorer in usable)
    return WordingComparison(tuple(sorted(tried, key=lambda one: one.rank)), tuple(refused), count, queries)


def _try(wording: TaskSpec, scorer: PromptScorer, data: LabelledExamples, seed: int, advance: Progress) -> Tried:
    if not scorer.card.output.scores:
        return Tried(wording, Measured.of(scorer.judge(data, NoPrompt.Z, advance)), None)
    scores = scorer.scores(data, NoPrompt.Z, advance)
    return Tried(wording, Measured.of_scores(scores, data), cross_fitted_accuracy(scores[0], data.labels, seed))


def cross_fitted_accuracy(scores: Scores, labels: npt.NDArray[np.int64], seed: int = 0) -> float:
    """Returns the accuracy of scores `[B, K]` with offsets that were fitted on other folds than the one measured."""
    folds = np.zeros(len(labels), np.int64)
    turn = 0
    for rows in _by_class(labels, seed):
        folds[rows] = (turn + np.arange(len(rows))) % min(MOST_FOLDS, len(labels))
        turn += len(rows)  # so that the folds have about equal sizes, even if all classes are small
    right = 0
    for fold in np.unique(folds):
        held_out = folds == fold
        offsets = choose_offsets(scores[~held_out], labels[~held_out])
        right += int(((scores[held_out] + offsets).argmax(axis=1) == labels[held_out]).sum())
    return right / len(labels)


def sample_evenly(labels: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the rows of at most `count` examples: one of each class in turn, until there are enough."""
    shuffled = _by_class(labels, seed)
    turns = [(turn, index, row) for index, rows in enumerate(shuffled) for turn, row in enumerate(rows.tolist())]
    return np.sort(np.array([row for _, _, row in sorted(turns)[:count]], np.int64))


def _by_class(labels: npt.NDArray[np.int64], seed: int) -> list[npt.NDArray[np.int64]]:
    """Returns the rows of each class, shuffled."""
    rng = seeds.rng(seed, "wordings")
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
