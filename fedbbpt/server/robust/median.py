"""The coordinate-wise median (Yin et al. 2018, arXiv 1803.01498, option I). All clients count alike."""

import numpy as np

from fedbbpt.server.robust.rule import Combined, Stacks, Weights, majority


class Median:
    """Takes the median of each number over the clients."""

    def fewest(self, adversaries: int) -> int:
        """Returns 2 f + 1, of which most are honest."""
        return majority(adversaries)

    def combine(self, stacks: Stacks, weights: Weights, adversaries: int) -> Combined:
        """Returns the median of each number."""
        return {name: np.median(stack, axis=0) for name, stack in stacks.items()}
