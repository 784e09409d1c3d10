"""CMA-ES (Hansen, arXiv 1604.00772) with a full, diagonal or identity covariance. Its state is plain arrays.

Numbers in parentheses are the tutorial's equations. Only positive weights are used (no active update), so the
covariance stays positive definite and equation 46 is not needed. The diagonal variant is sep-CMA-ES (Ros & Hansen 2008,
https://doi.org/10.1007/978-3-540-87700-4_30). "identity" adapts only the mean and the step size.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Losses, Population

Vector: TypeAlias = npt.NDArray[np.float64]
Covariance: TypeAlias = Literal["full", "diagonal", "identity"]
Parents: TypeAlias = Literal["half", "all"]


@dataclass(frozen=True, slots=True)
class CmaState:
    """The search distribution N(mean, sigma^2 C) after `generation` generations, and its two evolution paths."""

    mean: Vector
    """`[n]`"""
    sigma: float
    covariance: Vector
    """C `[n, n]`, or its diagonal `[n]` if the covariance is not full."""
    path_sigma: Vector
    """`[n]`"""
    path_covariance: Vector
    """`[n]`"""
    generation: int


@dataclass(frozen=True, slots=True)
class Constants:
    """The strategy parameters, which depend on n and P only (table 1 of the tutorial)."""

    weights: Vector
    """The weights of the mu best candidates, best first."""
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi_n: float
    """The expected length of a draw from N(0, I)."""


@lru_cache(maxsize=8)
def constants(n: int, population: int, covariance: Covariance, parents: Parents) -> Constants:
    """Returns the strategy parameters for n dimensions and P candidates."""
    # With all P candidates as parents, the weights are those of the better half of 2 P candidates.
    pool = max(2 * population if parents == "all" else population, 2)
    raw = math.log((pool + 1) / 2) - np.log(np.arange(1, pool // 2 + 1))  # (49), its positive part
    weights = raw / raw.sum()  # (53)
    weights.setflags(write=False)
    mu_eff = float(1.0 / (weights**2).sum())
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # (55)
    d_sigma = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma  # (55)
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # (56)
    # A diagonal has n degrees of freedom instead of n (n + 1) / 2, and is learned faster (Ros & Hansen, section 3).
    speed = {"full": 1.0, "diagonal": (n + 2) / 3, "identity": 0.0}[covariance]
    c_1 = min(1.0, speed * 2 / ((n + 1.3) ** 2 + mu_eff))  # (57)
    c_mu = min(1 - c_1, speed * 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))  # (58)
    chi_n = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
    return Constants(weights, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, chi_n)


def sample(mean: npt.NDArray[np.floating], scale: npt.NDArray[np.floating], seed: int, population: int) -> Population:
    """Returns candidates `[P, n]` of N(mean, diag(scale^2)), the same in every process and programming language.

    Args:
        mean: The mean `[n]`.
        scale: sigma times the square roots of C's diagonal, `[n]`.
    """
    return mean.astype(np.float64) + scale.astype(np.float64) * _draws(seed, (population, len(mean)))


@lru_cache(maxsize=4)
def _draws(seed: int, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Returns the normals of a population, read-only. Scoring, the step and a replay of the step ask for the same."""
    drawn = seeds.normals(seed, shape)
    drawn.setflags(write=False)
    return drawn


@dataclass(frozen=True, slots=True)
class CmaEs:
    """The search as ask and tell. `tell` accepts a population of any size and origin as that of the generation."""

    population: int
    sigma: float
    covariance: Covariance = "full"
    parents: Parents = "half"

    def init(self, mean: Vector) -> CmaState:
        n = len(mean)
        return CmaState(
            mean=np.array(mean, np.float64),
            sigma=self.sigma,
            covariance=np.eye(n) if self.covariance == "full" else np.ones(n),
            path_sigma=np.zeros(n),
            path_covariance=np.zeros(n),
            generation=0,
        )

    def scale(self, state: CmaState) -> Vector:
        """Returns sigma times the square roots of C's diagonal, `[n]`."""
        variances = np.diag(state.covariance) if self.covariance == "full" else state.covariance
        return state.sigma * np.sqrt(variances)

    def ask(self, state: CmaState, seed: int) -> Population:
        if self.covariance != "full":
            return sample(state.mean, self.scale(state), seed, self.population)
        z = _draws(seed, (self.population, len(state.mean)))  # (38)
        # (39) with C^1/2 = B D B^T, which does not depend on the signs and the order of C's eigenvectors.
        return state.mean + state.sigma * z @ _power(state.covariance, 0.5)  # (40)

    def tell(self, state: CmaState, population: Population, losses: Losses) -> CmaState:
        n, generation = len(state.mean), state.generation + 1
        k = constants(n, len(losses), self.covariance, self.parents)
        # NaN ranks worst. The sort is stable, so equal losses keep their order on every machine.
        order = np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")
        y = (population[order[: len(k.weights)]] - state.mean) / state.sigma
        y_w = k.weights @ y  # (41)
        mean = state.mean + state.sigma * y_w  # (42)

        path_sigma = (1 - k.c_sigma) * state.path_sigma + math.sqrt(
            k.c_sigma * (2 - k.c_sigma) * k.mu_eff
        ) * self._whiten(state, y_w)  # (43)
        length = float(np.linalg.norm(path_sigma))
        # (44), with a factor of at most e, as in pycma.
        sigma = state.sigma * math.exp(min(1.0, k.c_sigma / k.d_sigma * (length / k.chi_n - 1)))

        unbiased = length / math.sqrt(1 - (1 - k.c_sigma) ** (2 * generation))
        h_sigma = float(unbiased < (1.4 + 2 / (n + 1)) * k.chi_n)
        path_covariance = (1 - k.c_c) * state.path_covariance + h_sigma * math.sqrt(
            k.c_c * (2 - k.c_c) * k.mu_eff
        ) * y_w  # (45)
        lost = (1 - h_sigma) * k.c_c * (2 - k.c_c)
        covariance = (1 + k.c_1 * lost - k.c_1 - k.c_mu) * state.covariance  # (47)
        if self.covariance == "full":
            covariance += k.c_1 * np.outer(path_covariance, path_covariance) + k.c_mu * (k.weights * y.T) @ y
        else:
            covariance += k.c_1 * path_covariance**2 + k.c_mu * k.weights @ y**2
        return CmaState(mean, sigma, covariance, path_sigma, path_covariance, generation)

    def _whiten(self, state: CmaState, y: Vector) -> Vector:
        """Returns C^-1/2 y."""
        if self.covariance == "full":
            return _power(state.covariance, -0.5) @ y
        return y / np.sqrt(state.covariance)


def _power(matrix: Vector, exponent: float) -> Vector:
    """Returns a power of a symmetric positive definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    root: Vector = (vectors * eigenvalues**exponent) @ vectors.T
    return root
