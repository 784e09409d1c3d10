"""What answers of the PTM say of prompts: as much as its output lets one know."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor, OutputWithheld
from fedbbpt.tasks.criterion import Labels, correct, cross_entropy
from fedbbpt.types import Array, Losses, Output


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of P prompts on B labelled examples."""

    examples: int
    losses: Losses | None
    """The mean cross-entropy `[P]`; None where only classes are known."""
    correct: npt.NDArray[np.int64] | None
    """The number of right answers `[P]`; None where only losses are known."""

    @property
    def objective(self) -> Losses:
        """What a search minimises `[P]`: the mean cross-entropy, or where there is none the share of wrong answers."""
        if self.losses is not None:
            return self.losses
        assert self.correct is not None, "an answer says something"
        return 1.0 - self.correct / self.examples


def judge(output: Output, answers: Sequence[Array], labels: Sequence[Labels]) -> Judgement:
    """Of the same prompts on several parts of the examples: `answers` as interfaces.Scored has them, a part's labels.

    Raises InvalidTensor where an answer is none to so many examples.
    """
    whole = np.concatenate(labels)
    if output.scores:
        scores = np.concatenate(answers, axis=1)
        return Judgement(len(whole), cross_entropy(scores, whole), correct(scores, whole))
    for answer, own in zip(answers, labels, strict=True):
        if answer.shape[1:] != (() if output is Output.LOSS_ONLY else own.shape):
            what = f"an answer of shape {answer.shape} to {len(own)} examples"
            raise InvalidTensor(what, where="answer", fix="[prompts] losses, or [prompts, examples] classes")
    if output is Output.LABEL_ARGMAX:
        right = np.concatenate(answers, axis=1) == whole
        return Judgement(len(whole), None, right.sum(axis=1, dtype=np.int64))
    shares = [len(own) / len(whole) * losses for own, losses in zip(labels, answers, strict=True)]
    return Judgement(len(whole), np.sum(shares, axis=0), None)


def require_scores(output: Output, wanting: str) -> None:
    """Raises OutputWithheld where the PTM gives less than a score for each class."""
    if not output.scores:
        fix = "another method or setting, or another agreement with the provider"
        raise OutputWithheld(f"the PTM gives {output}, and not the scores that {wanting} needs", where="ptm", fix=fix)
