"""Sums over examples in which no example counts more than a given norm, for differential privacy of each example.

What an example adds to a sum is a vector. One that is longer than `clip_norm` is scaled down to it (Abadi et al., Deep
Learning with Differential Privacy, 2016, algorithm 1), and one with an infinite number or a NaN becomes 0, so that
leaving an example out changes a sum by a vector of that norm at most.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedbbpt.tasks.criterion import Labels, cross_entropies
from fedbbpt.tasks.readout import scores as scores_of
from fedbbpt.types import Expansion, Losses, Scores

Floats = npt.NDArray[np.float64]

TOGETHER = 512
"""Examples whose Hessians are in memory at the same time."""


def factors(norms: Floats, clip_norm: float) -> Floats:
    """Returns by what each example is multiplied, `[B]`: 0 where its norm is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.minimum(1.0, clip_norm / norms) * (1 - 1e-12)
    return np.where(np.isfinite(norms), np.where(norms > 0, found, 1.0), 0.0)


def relative_losses(scores: Scores, labels: Labels, clip_norm: float) -> Losses:
    """Returns the mean over the examples of their clipped losses, `[P]`, relative to each example's mean over P.

    The order of candidates does not depend on the number that is subtracted, and without it the vectors are short.

    Args:
        scores: `[P, B, K]`.
        labels: The classes of the examples `[B]`.
        clip_norm: The largest norm of an example's P numbers.
    """
    losses = cross_entropies(scores, labels)
    with np.errstate(invalid="ignore"):
        relative = losses - losses.mean(axis=0)
    factor = factors(np.linalg.norm(relative, axis=0), clip_norm)
    found: Losses = np.where(factor > 0, relative, 0.0) @ factor / len(labels)
    return found


def clipped_expansion(scores: Scores, shifts: npt.NDArray[np.floating], labels: Labels, clip_norm: float) -> Expansion:
    """Returns the expansion of `criterion.expansion` with the terms of each example clipped.

    An example's vector consists of its loss at the first candidate less that at the mean, its gradient, and the upper
    triangle of its Hessian. The losses of the result are relative to that of the mean; those after the first two are 0.

    Args:
        scores: S `[1 + P, B, K]`.
        shifts: `[O, K]`.
        labels: The classes of the examples `[B]`.
        clip_norm: The largest norm of an example's vector.
    """
    number, count = len(scores) - 1 + len(shifts), len(labels)
    losses, gradient, hessian = np.zeros(len(scores)), np.zeros(number), np.zeros((number, number))
    for decrease, by_example, curved in _terms(scores, shifts, labels):
        upper = curved[:, *np.triu_indices(number)]
        norms = np.sqrt(decrease**2 + (by_example**2).sum(axis=1) + (upper**2).sum(axis=1))
        factor = factors(norms, clip_norm)
        whole = factor > 0
        losses[1] += factor[whole] @ decrease[whole]
        gradient += factor[whole] @ by_example[whole]
        hessian += np.tensordot(factor[whole], curved[whole], axes=1)
    return Expansion(losses / count, gradient / count, hessian / count)


def _terms(scores: Scores, shifts: npt.NDArray[np.floating], labels: Labels) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yields decreases `[B]`, gradients `[B, N]` and Hessians `[B, N, N]` of some examples at a time."""
    for start in range(0, len(labels), TOGETHER):
        some, label = scores[:, start : start + TOGETHER], labels[start : start + TOGETHER]
        part = some.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            losses = cross_entropies(some[:2], label)
            base = part[0]
            by_shifts = np.broadcast_to(shifts[:, None, :], (len(shifts), *base.shape))
            x = np.concatenate([part[1:] - base, by_shifts])  # [N, B, K]
            p = np.exp(base - base.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            gradient = np.einsum("nbk,bk->bn", x, p - np.eye(base.shape[1])[label])
            flat = (x - np.einsum("nbk,bk->nb", x, p)[:, :, None]) * np.sqrt(p)
            yield losses[1] - losses[0], gradient, np.einsum("nbk,mbk->bnm", flat, flat)


def clipped_gradient(
    columns: npt.NDArray[np.floating], labels: Labels, readouts: npt.NDArray[np.floating], clip_norm: float
) -> Floats:
    """Returns the sum of the clipped gradients of the examples' losses by a readout, `[1, K, C + 1]`.

    Args:
        columns: The column scores of the examples, `[B, C]`, all finite.
        labels: Their classes `[B]`.
        readouts: A single one, `[1, K, C + 1]`.
        clip_norm: The largest norm of an example's gradient.
    """
    logits = scores_of(columns, readouts)[0]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1.0
    with_one = np.concatenate([columns.astype(np.float64), np.ones((len(columns), 1))], axis=1)
    # The gradient is an outer product, whose norm is the product of the norms.
    factor = factors(np.linalg.norm(p, axis=1) * np.linalg.norm(with_one, axis=1), clip_norm)
    found: Floats = ((p * factor[:, None]).T @ with_one)[None]
    return found
