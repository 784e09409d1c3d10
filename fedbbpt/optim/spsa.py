"""SPSA with gradient correction (SPSA-GC): a gradient estimate from pairs of losses, with Nesterov-like momentum.

SPSA is from Spall 1992, https://doi.org/10.1109/9.119632, and SPSA-GC from BlackVIP, arXiv 2303.14773.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Losses, Population


@dataclass(frozen=True, slots=True)
class SpsaState:
    """The search before step i."""

    point: npt.NDArray[np.float64]
    """phi, the point `[n]`."""
    momentum: npt.NDArray[np.float64]
    """m `[n]`."""
    step: int
    """i, counted from 1."""


@dataclass(frozen=True, slots=True)
class SpsaGc:
    """The search as ask and tell.

    A generation is `estimates` pairs: all phi + c_i Delta_j first, then all phi - c_i Delta_j. The gains of step i are
    a_i = a / (i + o)^alpha and c_i = c / i^gamma; beta is the momentum.
    """

    estimates: int
    a: float
    alpha: float
    o: float
    c: float
    gamma: float
    beta: float

    def init(self, mean: npt.NDArray[np.float64]) -> SpsaState:
        return SpsaState(point=np.array(mean, np.float64), momentum=np.zeros(len(mean)), step=1)

    def ask(self, state: SpsaState, seed: int) -> Population:
        shape = (self.estimates, len(state.point))
        drawn = 2 * seeds.uniforms(seeds.derive(seed, "spsa"), self.estimates * len(state.point)).reshape(shape) - 1
        delta = np.copysign((1 + np.abs(drawn)) / 2, drawn)  # Delta_j ~ +-U[0.5, 1]
        c_i = self.c / state.step**self.gamma
        return np.concatenate([state.point + c_i * delta, state.point - c_i * delta])

    def tell(self, state: SpsaState, population: Population, losses: Losses) -> SpsaState:
        return self.follow(state, population, self.coefficients(losses))

    def coefficients(self, losses: Losses) -> npt.NDArray[np.float64]:
        """Returns all that a step takes from the losses: the difference of each pair, `[estimates]`.

        A pair without two finite losses does not show a slope, and is left out: its difference is 0, and the others
        count for it.
        """
        plus, minus = np.split(losses, 2)
        sound = np.isfinite(plus) & np.isfinite(minus)
        share = len(sound) / max(int(sound.sum()), 1)
        return np.where(sound, plus, 0.0) * share - np.where(sound, minus, 0.0) * share

    def follow(self, state: SpsaState, population: Population, coefficients: npt.NDArray[np.floating]) -> SpsaState:
        """Returns the state after the step of these coefficients, which are those of the generation's losses."""
        plus, minus = np.split(population, 2)
        width = plus - minus  # 2 c Delta, or 0 if phi is so large that adding c Delta does not change it
        # g = (L(phi + c Delta) - L(phi - c Delta)) / (2 c Delta), elementwise
        slopes = np.divide(coefficients[:, None], width, out=np.zeros_like(width), where=width != 0)
        g = slopes.sum(axis=0) / len(coefficients)
        a_i = self.a / (state.step + self.o) ** self.alpha
        momentum = self.beta * state.momentum + g  # m <- beta m + g
        point = state.point - a_i * (g + self.beta * momentum)  # phi <- phi - a_i (g + beta m)
        return SpsaState(point, momentum, state.step + 1)
