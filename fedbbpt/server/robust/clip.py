"""Clipping: no client counts for more than the median client, neither by its weight nor by the length of its arrays.

An array of a client is shortened to the median length of that array over the clients, as in norm clipping (Sun et al.
2019, arXiv 1911.07963), with a threshold that needs no tuning. A weight is lowered to the lower median of the weights.
So the share of one client is at most 1 / (floor(n / 2) + 1), and it moves the result by at most that share of the
median length. Ranks are bounded already and are not shortened (`ranks`): one client moves the mean rank of a candidate
among P by at most (P - 1) / (floor(n / 2) + 1).
"""

import numpy as np

from fedbbpt.server.robust.rule import Combined, Stacks, Weights, majority


class Clip:
    """Takes the mean of the clients' arrays, with their lengths and weights limited."""

    def fewest(self, adversaries: int) -> int:
        """Returns 2 f + 1, of which most are honest."""
        return majority(adversaries)

    def combine(self, stacks: Stacks, weights: Weights, adversaries: int) -> Combined:
        """Returns the weighted mean of the shortened arrays."""
        limited = np.minimum(weights, lower_median(weights))
        shares = limited / limited.sum()
        return {name: np.tensordot(shares, shortened(stack), axes=1) for name, stack in stacks.items()}


def lower_median(values: Weights) -> float:
    """Returns the median, or the lower one of two: more than half of the values are at least as large."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def shortened(stack: Weights) -> Weights:
    """Returns arrays `[n, ...]`, none of which is longer than the median length of them."""
    flat = stack.reshape(len(stack), -1)
    lengths = np.linalg.norm(flat, axis=1)
    limit = lower_median(lengths)
    factors = np.divide(limit, lengths, out=np.ones_like(lengths), where=lengths > limit)
    return np.asarray(flat * factors[:, None]).reshape(stack.shape)
