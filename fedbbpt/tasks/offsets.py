"""The control that a tuned prompt must beat: one score offset for each class, fitted on the same examples.

A zero-shot model often prefers some classes regardless of the input. Prompt tuning gains much of its accuracy by
correcting this preference, and K numbers correct it too (Zhao et al., Calibrate Before Use, arXiv 2102.09690, without
labels). So results are reported next to the accuracy of these offsets: the prompt has learnt only the difference.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.tasks.criterion import Labels, cross_entropies

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""The penalties that `choose_offsets` tries."""
FOLDS = 5
"""The parts of the examples in cross-validation."""
MAX_STEPS = 100
"""Newton steps; the search ends earlier when it has converged."""


def choose_offsets(
    scores: npt.NDArray[np.floating], labels: Labels, ridges: Sequence[float] = RIDGES
) -> npt.NDArray[np.float64]:
    """Returns the offsets `[K]` of `fit_offsets` with the ridge of the lowest loss in cross-validation on the examples.

    So no dev examples are needed. The examples of each class are dealt out to the folds in turn.

    Args:
        scores: finite scores `[B, K]`, without a prompt.
        labels: the classes of the examples `[B]`.
        ridges: the penalties to choose from; the largest wins among equals.
    """
    folds = np.empty(len(labels), np.int64)
    folds[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS

    def loss(ridge: float) -> float:
        total = 0.0
        for fold in np.unique(folds):
            held_out = folds == fold
            shifted = scores[held_out] + fit_offsets(scores[~held_out], labels[~held_out], ridge)
            total += float(cross_entropies(shifted[None].astype(np.float32), labels[held_out]).sum())
        return total

    if len(np.unique(folds)) < 2:
        return fit_offsets(scores, labels, max(ridges))
    return fit_offsets(scores, labels, min(sorted(ridges, reverse=True), key=loss))


def fit_offsets(scores: npt.NDArray[np.floating], labels: Labels, ridge: float) -> npt.NDArray[np.float64]:
    """Returns the offsets b `[K]` that minimise mean cross-entropy(scores + b, labels) + ridge / 2 |b|^2.

    The ridge makes the convex objective strictly convex, so it has one minimum even if a class has no example. The
    minimum is found by Newton's method with step halving. The offsets sum to zero.

    Args:
        scores: finite scores `[B, K]`, without a prompt.
        labels: the classes of the examples `[B]`.
        ridge: the weight of the penalty.
    """
    logits = scores.astype(np.float64)
    count, classes = logits.shape
    share = np.bincount(labels, minlength=classes) / count  # [K]

    def objective(offsets: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Returns the value and the probabilities `[B, K]`."""
        shifted = logits + offsets
        shifted -= shifted.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(shifted).sum(axis=1))
        loss = (normaliser - shifted[np.arange(count), labels]).mean()
        return float(loss + ridge / 2 * offsets @ offsets), np.exp(shifted - normaliser[:, None])

    offsets = np.zeros(classes)
    value, p = objective(offsets)
    for _ in range(MAX_STEPS):
        gradient = p.mean(axis=0) - share + ridge * offsets
        hessian = np.diag(p.mean(axis=0)) - p.T @ p / count + ridge * np.eye(classes)
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-16:
            break
        length = 1.0
        # Far from the minimum a full step may overshoot. Since the objective is convex, a shorter step descends.
        while True:
            candidate = offsets - length * step
            candidate_value, candidate_p = objective(candidate)
            if candidate_value <= value - length * decrement / 4 or length < 1e-9:
                break
            length /= 2
        offsets, value, p = candidate, candidate_value, candidate_p
    return offsets
