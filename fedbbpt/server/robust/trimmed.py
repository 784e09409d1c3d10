"""The coordinate-wise trimmed mean (Yin et al. 2018, arXiv 1803.01498, option II). All clients count alike."""

import numpy as np

from fedbbpt.server.robust.rule import Combined, Stacks, Weights, majority


class Trimmed:
    """Takes the mean of each number over the clients, without the f lowest and the f highest."""

    def fewest(self, adversaries: int) -> int:
        """Returns 2 f + 1, of which most are honest."""
        return majority(adversaries)

    def combine(self, stacks: Stacks, weights: Weights, adversaries: int) -> Combined:
        """Returns the mean of each number that is left."""
        kept = slice(adversaries, len(weights) - adversaries)
        return {name: np.sort(stack, axis=0)[kept].mean(axis=0) for name, stack in stacks.items()}
