"""SPSA with gradient correction: a gradient estimated from pairs of losses, and a look-ahead along its momentum.

SPSA: Spall 1992, https://doi.org/10.1109/9.119632. SPSA-GC: BlackVIP, arXiv 2303.14773.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Losses, Population


@dataclass(frozen=True, slots=True)
class SpsaState:
    point: npt.NDArray[np.float64]
    """phi `[n]`"""
    momentum: npt.NDArray[np.float64]
    """m `[n]`"""
    step: int
    """i, from 1."""


@dataclass(frozen=True, slots=True)
class SpsaGc:
    """The search as ask/tell; a generation is `estimates` pairs: all phi + c_i Delta_j, then all phi - c_i Delta_j."""

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
        rng = seeds.rng(seed, "spsa")
        delta = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.0, shape)  # Delta_j ~ +-U[0.5, 1]
        c_i = self.c / state.step**self.gamma
        return np.concatenate([state.point + c_i * delta, state.point - c_i * delta])

    def tell(self, state: SpsaState, population: Population, losses: Losses) -> SpsaState:
        plus, minus = np.split(population, 2)
        loss_plus, loss_minus = np.split(losses, 2)
        # A pair without two finite losses says nothing about the slope.
        sound = np.isfinite(loss_plus) & np.isfinite(loss_minus)
        difference = np.where(sound, loss_plus, 0.0) - np.where(sound, loss_minus, 0.0)
        width = plus - minus  # 2 c Delta; 0 where phi is so large that c Delta drowns in it
        # g = (L(phi + c Delta) - L(phi - c Delta)) / (2 c Delta), elementwise
        slopes = np.divide(difference[:, None], width, out=np.zeros_like(width), where=width != 0)
        g = slopes.sum(axis=0) / max(int(sound.sum()), 1)
        a_i = self.a / (state.step + self.o) ** self.alpha
        momentum = self.beta * state.momentum + g  # m <- beta m + g
        point = state.point - a_i * (g + self.beta * momentum)  # phi <- phi - a_i (g + beta m)
        return SpsaState(point, momentum, state.step + 1)
