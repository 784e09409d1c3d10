"""The losses and the accuracy of prompts, for every form of output of the PTM."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor, OutputWithheld
from fedbbpt.tasks.criterion import Labels, correct, cross_entropy
from fedbbpt.types import Array, Losses, Output


@dataclass(frozen=True, slots=True)
class Judgement:
    """The measure of P prompts on B labelled examples."""

    examples: int
    """B"""
    losses: Losses | None
    """Mean cross-entropy `[P]`, in nats; None if the PTM gives only classes."""
    correct: npt.NDArray[np.int64] | None
    """Number of correct answers `[P]`; None if the PTM gives only losses."""

    @property
    def objective(self) -> Losses:
        """The objective of a search `[P]`: the mean cross-entropy, or the share of wrong answers if it is unknown."""
        if self.losses is not None:
            return self.losses
        assert self.correct is not None, "every output gives losses or classes"
        return 1.0 - self.correct / self.examples


def judge(output: Output, answers: Sequence[Array], labels: Sequence[Labels]) -> Judgement:
    """Returns the measure of prompts on examples that were sent in several parts.

    Args:
        output: the form of the PTM's answers.
        answers: the answer for each part, as in `types.Scored`.
        labels: the classes of each part's examples.

    Raises:
        InvalidTensor: the shape of an answer does not fit the number of examples.
    """
    whole = labels[0] if len(labels) == 1 else np.concatenate(labels)
    if output.scores:
        scores = answers[0] if len(answers) == 1 else np.concatenate(answers, axis=1)
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
    """Raises OutputWithheld if the PTM does not give a score for each class; `wanting` names what needs them."""
    if not output.scores:
        fix = 'another method or setting, such as fed-cma with step = "ranks", or another agreement with the provider'
        raise OutputWithheld(f"the PTM gives {output}, and not the scores that {wanting} needs", where="ptm", fix=fix)
