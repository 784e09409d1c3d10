"""Multi-Krum (Blanchard et al. 2017, https://papers.nips.cc/paper/6617): the clients that agree most with others."""

import numpy as np
import numpy.typing as npt

from fedbbpt.server.robust.rule import Combined, Stacks, Weights


class Krum:
    """Takes the mean of the n - f updates with the lowest scores.

    The score of an update is the sum of its squared distances to the n - f - 2 updates that are nearest to it. All
    clients that are chosen count alike.
    """

    def fewest(self, adversaries: int) -> int:
        """Returns 2 f + 3, with which most of the nearest are honest."""
        return 2 * adversaries + 3

    def chosen(self, stacks: Stacks, adversaries: int) -> npt.NDArray[np.int64]:
        """Returns the indices of the clients that count, in order."""
        points = np.concatenate([stack.reshape(len(stack), -1) for stack in stacks.values()], axis=1)
        nearest = len(points) - adversaries - 2
        distances = (np.sort(((points - point) ** 2).sum(axis=1)) for point in points)
        # The nearest one is the update itself, at distance 0.
        scores = np.array([away[1 : nearest + 1].sum() for away in distances])
        return np.sort(np.argsort(scores, kind="stable")[: len(points) - adversaries])

    def combine(self, stacks: Stacks, weights: Weights, adversaries: int) -> Combined:
        """Returns the mean of the chosen clients."""
        chosen = self.chosen(stacks, adversaries)
        return {name: stack[chosen].mean(axis=0) for name, stack in stacks.items()}
