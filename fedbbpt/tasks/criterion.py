"""From label scores to what a search minimises and a person reads: cross-entropy, and the number of right answers."""

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Losses, Scores

Labels = npt.NDArray[np.int64]


def cross_entropy(scores: Scores, labels: Labels) -> Losses:
    """Mean of log sum_k exp(s_k) - s_y over the examples: `[P, B, K]`, `[B]` -> float64 `[P]`.

    Scores count as logits. A loss that is no number (a NaN or infinite score, of whatever example) is +inf, so that
    such a candidate never wins.

    >>> float(cross_entropy(np.zeros((1, 3, 2), np.float32), np.array([0, 1, 1]))[0])  # log 2
    0.6931471805599453
    """
    _check(scores, labels)
    logits = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Only differences to the largest score are exponentiated: no overflow.
        logits -= logits.max(axis=2, keepdims=True)
        normaliser = np.log(np.exp(logits).sum(axis=2))  # [P, B]
        losses: Losses = (normaliser - logits[:, np.arange(len(labels)), labels]).mean(axis=1)
    losses[np.isnan(losses)] = np.inf
    return losses


def correct(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """How many examples have their own class on top: `[P, B, K]`, `[B]` -> int64 `[P]`; NaN is never right."""
    _check(scores, labels)
    right = (scores.argmax(axis=2) == labels) & ~np.isnan(scores).any(axis=2)
    counts: npt.NDArray[np.int64] = right.sum(axis=1, dtype=np.int64)
    return counts


def accuracy(scores: Scores, labels: Labels) -> npt.NDArray[np.float64]:
    """The share of right answers: `[P, B, K]`, `[B]` -> float64 `[P]` in [0, 1]."""
    return correct(scores, labels) / len(labels)


def _check(scores: Scores, labels: Labels) -> None:
    """Scores come from another process; a wrong shape must not broadcast its way to a number."""
    fits = scores.ndim == 3 and labels.ndim == 1 and scores.shape[1] == len(labels) > 0
    if not fits or not 0 <= labels.min() <= labels.max() < scores.shape[2]:
        raise InvalidTensor(
            f"scores {list(scores.shape)} do not fit {labels.size} labels",
            where="scores",
            fix="[prompts, examples, classes], one label for each example, one class for each label",
        )
