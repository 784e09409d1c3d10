"""AdamW (Loshchilov & Hutter, arXiv 1711.05101), with PyTorch's constants. Comments name the lines of algorithm 2.

As in PyTorch and unlike the paper, the learning rate scales the weight decay, too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class AdamWState:
    """The point and the moments of its gradient, arrays of one shape, after `step` steps."""

    point: npt.NDArray[np.float64]
    """theta"""
    first: npt.NDArray[np.float64]
    """m, the moving average of the gradients."""
    second: npt.NDArray[np.float64]
    """v, the moving average of the squared gradients."""
    step: int
    """t, the number of steps made."""


@dataclass(frozen=True, slots=True)
class AdamW:
    """The optimizer as a function from state and gradient to the next state."""

    learning_rate: float
    weight_decay: float

    def init(self, point: npt.NDArray[np.float64]) -> AdamWState:
        """Returns the state before the first step from `point`."""
        return AdamWState(np.array(point, np.float64), np.zeros(point.shape), np.zeros(point.shape), step=0)

    def step(self, state: AdamWState, gradient: npt.NDArray[np.float64]) -> AdamWState:
        """Returns the state after one step against the gradient."""
        t = state.step + 1
        first = BETA_1 * state.first + (1 - BETA_1) * gradient  # 7
        second = BETA_2 * state.second + (1 - BETA_2) * gradient**2  # 8
        unbiased_first = first / (1 - BETA_1**t)  # 9
        unbiased_second = second / (1 - BETA_2**t)  # 10
        direction = unbiased_first / (np.sqrt(unbiased_second) + EPSILON)
        point = state.point - self.learning_rate * (direction + self.weight_decay * state.point)  # 12
        return AdamWState(point, first, second, t)
