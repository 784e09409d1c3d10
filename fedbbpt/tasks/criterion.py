"""Measures of label scores: the cross-entropy, which a search minimises, and the number of correct answers."""

import math

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.limits import MAX_CLASSES
from fedbbpt.types import Expansion, Losses, Scores

Labels = npt.NDArray[np.int64]

MAX_LOSS = 2 * float(np.finfo(np.float32).max) + math.log(MAX_CLASSES)
"""The largest cross-entropy of an example, in nats.

log sum_k exp(s_k) - s_y is at most max_k s_k - s_y + log K, and scores are float32.
"""


def cross_entropies(scores: Scores, labels: Labels) -> npt.NDArray[np.float64]:
    """Returns log sum_k exp(s_k) - s_y for each example: `[P, B, K]`, `[B]` -> float64 `[P, B]`, in nats.

    Scores are taken as logits. A loss that would be NaN, because a score is NaN or infinite, is +inf.
    Raises InvalidTensor if the scores do not fit the labels.
    """
    _check(scores, labels)
    logits = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Only differences to the largest score are exponentiated, so that nothing overflows.
        logits -= logits.max(axis=2, keepdims=True)
        normaliser = np.log(np.exp(logits).sum(axis=2))  # [P, B]
        losses: npt.NDArray[np.float64] = normaliser - logits[:, np.arange(len(labels)), labels]
    losses[np.isnan(losses)] = np.inf
    return losses


def cross_entropy(scores: Scores, labels: Labels) -> Losses:
    """Returns the mean of `cross_entropies` over the examples: `[P, B, K]`, `[B]` -> float64 `[P]`.

    The mean is +inf if the loss of one example is, so such a candidate never wins.

    >>> float(cross_entropy(np.zeros((1, 3, 2), np.float32), np.array([0, 1, 1]))[0])  # log 2
    0.6931471805599453
    """
    losses: Losses = cross_entropies(scores, labels).mean(axis=1)
    return losses


def expansion(scores: Scores, shifts: npt.NDArray[np.floating], labels: Labels) -> Expansion:
    """Returns the mean cross-entropy F(a) of S_0 + sum_i a_i (S_i - S_0) + sum_j a_(P+j) shifts_j around a = 0.

    With p the probabilities, e the one-hot true class and X_i the change of one example's scores per unit of a_i, the
    gradient is the mean of X_i (p - e), and the Hessian is the mean of X_i (diag(p) - p p') X_j. F is convex in a, as
    every softmax regression is.

    Args:
        scores: S `[1 + P, B, K]`.
        labels: the classes of the examples `[B]`.
        shifts: `[O, K]`, the same for all examples.

    Returns:
        The expansion in the N = P + O numbers a. If S_i is not finite, its loss is +inf, its entry of the gradient is
        NaN and its rows of the Hessian are 0. If S_0 is not finite, the whole gradient is NaN and the Hessian is 0.
    """
    _check(scores, labels)
    losses = cross_entropy(scores, labels)
    base, count = scores[0].astype(np.float64), len(labels)
    with np.errstate(invalid="ignore"):
        moved = scores[1:].astype(np.float64) - base
    broken = ~np.isfinite(moved).all(axis=(1, 2))
    if not np.isfinite(base).all():
        number = len(moved) + len(shifts)
        return Expansion(losses, np.full(number, np.nan), np.zeros((number, number)))
    moved[broken] = 0.0
    by_shifts = np.broadcast_to(shifts[:, None, :], (len(shifts), *base.shape))
    x = np.concatenate([moved, by_shifts])  # [N, B, K]
    p = np.exp(base - base.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gradient = np.einsum("nbk,bk->n", x, p - np.eye(base.shape[1])[labels]) / count
    gradient[: len(moved)][broken] = np.nan
    flat = (x - np.einsum("nbk,bk->nb", x, p)[:, :, None]) * np.sqrt(p)
    rows = flat.reshape(len(x), -1)
    return Expansion(losses, gradient, rows @ rows.T / count)


def correct(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """Returns the number of examples whose true class has the highest score: `[P, B, K]`, `[B]` -> int64 `[P]`.

    An example with a NaN score is never counted as correct.
    """
    _check(scores, labels)
    right = (scores.argmax(axis=2) == labels) & ~np.isnan(scores).any(axis=2)
    counts: npt.NDArray[np.int64] = right.sum(axis=1, dtype=np.int64)
    return counts


def accuracy(scores: Scores, labels: Labels) -> npt.NDArray[np.float64]:
    """Returns the share of correct answers: `[P, B, K]`, `[B]` -> float64 `[P]` in [0, 1]."""
    return correct(scores, labels) / len(labels)


def _check(scores: Scores, labels: Labels) -> None:
    # Scores come from another process, and numpy would broadcast a wrong shape to a wrong number.
    fits = scores.ndim == 3 and labels.ndim == 1 and scores.shape[1] == len(labels) > 0
    if not fits or not 0 <= labels.min() <= labels.max() < scores.shape[2]:
        raise InvalidTensor(
            f"scores {list(scores.shape)} do not fit {labels.size} labels",
            where="scores",
            fix="[prompts, examples, classes], one label for each example, one class for each label",
        )
