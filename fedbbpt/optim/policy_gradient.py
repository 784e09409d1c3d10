"""The search for words: independent categorical distributions, tuned by a variance-reduced policy gradient.

This is BDPL (arXiv 2201.08531). A prompt has n words, and word i is candidate j of N with probability theta_ij. A
generation is I prompts drawn from theta. Their losses L_k give

    g = 1 / (I - 1) sum_k (L_k - mean(L)) d log p(prompt k) / d theta,

an unbiased estimate of the gradient of the expected loss, up to a constant that points away from the simplex. AdamW
makes a step with it, and each row of theta is projected back onto the simplex.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.optim.adamw import AdamW, AdamWState
from fedbbpt.optim.simplex import project
from fedbbpt.types import Losses, Population

ScoreFunction: TypeAlias = Literal["true", "signed"]

MIN_PROBABILITY = 1e-9
"""The smallest probability that a draw is divided by, so that its score stays finite."""


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """The search over theta `[n, N]` as ask and tell. A population `[I, n]` holds indices of candidates, 0 to N - 1."""

    samples: int
    """I, the prompts drawn in a generation."""
    learning_rate: float
    weight_decay: float
    clip_norm: float
    """A longer gradient is shortened to this norm."""
    score_function: ScoreFunction = "true"

    def init(self, mean: npt.NDArray[np.float64]) -> AdamWState:
        """Returns the state at theta `[n, N]`, whose rows are distributions."""
        return self._adamw.init(mean)

    def ask(self, state: AdamWState, seed: int) -> Population:
        """Draws each word by inverting its cumulative distribution. A word of probability 0 is never drawn."""
        cumulative = np.cumsum(state.point, axis=1)
        uniform = seeds.rng(seed, "policy-gradient").random((self.samples, len(state.point)))
        columns = [
            np.searchsorted(row, drawn * row[-1], side="right")
            for row, drawn in zip(cumulative, uniform.T, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def tell(self, state: AdamWState, population: Population, losses: Losses) -> AdamWState:
        gradient = self.gradient(state.point, population, losses)
        length = float(np.linalg.norm(gradient))
        if length > self.clip_norm:
            gradient = gradient * (self.clip_norm / length)
        stepped = self._adamw.step(state, gradient)
        return replace(stepped, point=project(stepped.point))

    def gradient(
        self, theta: npt.NDArray[np.float64], population: Population, losses: Losses
    ) -> npt.NDArray[np.float64]:
        """Returns g `[n, N]`, from the prompts with finite losses. It is 0 if there are fewer than two of them."""
        sound = np.isfinite(losses)
        drawn, heard = population[sound].astype(np.int64), losses[sound]
        weights = np.zeros_like(theta)  # sum of L_k - mean(L) over the prompts k whose word i is candidate j
        if len(heard) > 1:
            np.add.at(weights, (np.arange(len(theta)), drawn), (heard - heard.mean())[:, None] / (len(heard) - 1))
        # d log p / d theta_ij is 1 / theta_ij where j was drawn, else 0. BDPL's code has -1 / theta_ij in place of 0.
        # Since the L_k - mean(L) sum to 0, that doubles the estimate and changes nothing else.
        factor = 2.0 if self.score_function == "signed" else 1.0
        gradient: npt.NDArray[np.float64] = factor * weights / np.maximum(theta, MIN_PROBABILITY)
        return gradient

    @property
    def _adamw(self) -> AdamW:
        return AdamW(self.learning_rate, self.weight_decay)
