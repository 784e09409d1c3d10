"""The interface of the rules that combine updates of which some may be lies."""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Stack: TypeAlias = npt.NDArray[np.float64]
Stacks: TypeAlias = Mapping[str, Stack]
"""The arrays of n clients by name, `[n, ...]`: what each sent for one example, not multiplied by its weight."""
Combined: TypeAlias = Mapping[str, Stack]
"""The arrays that stand for those of all clients, `[...]`."""
Weights: TypeAlias = npt.NDArray[np.float64]
"""The weights of the clients, `[n]`."""


class Rule(Protocol):
    """Combines the updates of n clients, at most f of which are adversaries.

    Laws, for n of at least `fewest(f)`: the result is that of the same updates in any order, up to rounding. Equal
    updates give the same one back. Whatever f of the clients send, each number of the result stays within a bound that
    depends on the updates of the others alone.
    """

    def fewest(self, adversaries: int) -> int:
        """Returns the smallest n for f adversaries."""
        ...

    def combine(self, stacks: Stacks, weights: Weights, adversaries: int) -> Combined:
        """Returns one update for those of all clients."""
        ...


def majority(adversaries: int) -> int:
    """Returns the smallest number of clients of which most are honest."""
    return 2 * adversaries + 1
