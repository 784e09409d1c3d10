"""fed-cma: CMA-ES on the global objective, whatever the label skew.

Each round the server asks its CMA-ES for one population; every client scores the same candidates on its own examples
and returns its losses times n_k; they add up to n times the global loss sum_k (n_k / n) F^k(z), which the server tells.
P numbers travel up. Down travel mean and scale, from which the clients draw the candidates by the task's seed, or,
where the covariance is full, the candidates themselves.

Ranks use little of what a population costs: of B x K scores a candidate, one number. With `step = "newton"` clients
also score the mean, and send the gradient and the Hessian of their loss in the mixtures of the candidates' scores,
F(a) = criterion(S_0 + sum_i a_i (S_i - S_0)), and in the offsets of the classes, which no candidate has to search.
They add as losses do. The mixture of the candidates with the best a is the next mean (optim/newton.py); a ridge keeps
it from fitting what only the training examples have. The step size stays, and the Hessian does what the covariance
did. Nothing is compared between rounds: the clients that answer need not be those of the round before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim import newton
from fedbbpt.optim.cmaes import CmaEs, CmaState, sample
from fedbbpt.optim.losses import finite
from fedbbpt.toml.section import contradiction
from fedbbpt.types import Arrays, Expansion, MethodSettings, Metrics, Population, Task, Update, merge, unpack


class FedCmaConfig(MethodConfig):
    """`[method]` of a job."""

    name: Literal["fed-cma"] = "fed-cma"
    population: int = Field(20, ge=4, le=1024, description="Candidates of a round.")
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="The first step size.")
    covariance: Literal["full", "diagonal"] = Field(
        "diagonal", description="full learns dependencies too, and sends all candidates down."
    )
    step: Literal["ranks", "newton"] = Field(
        "ranks", description="newton moves by the candidates' scores instead of their ranks, and needs fewer queries."
    )
    ridge: float = Field(1e-3, ge=0, allow_inf_nan=False, description="newton: the loss grows by ridge / 2 |z|^2.")
    damping: float = Field(3e-3, gt=0, allow_inf_nan=False, description="newton: a larger one makes shorter steps.")

    @model_validator(mode="after")
    def _newton_adapts_no_covariance(self) -> "FedCmaConfig":
        if self.step == "newton" and self.covariance == "full":
            raise contradiction("covariance", 'step = "newton" adapts no covariance', '"diagonal"')
        return self


@dataclass(frozen=True, slots=True)
class FedCmaSettings(MethodSettings):
    population: int
    """P"""
    candidates_sent: bool
    """Whether a broadcast holds `candidates`, or `mean` and `scale` to draw them from."""
    expansion_sent: bool
    """Whether an update holds `loss`, `gradient` and `hessian`, or `losses`."""


def candidates(arrays: Arrays, seed: int, settings: FedCmaSettings) -> Population:
    """A round's candidates `[P, n]`, the same in both halves: rounded to float32, as the PTM is going to get them."""
    if settings.candidates_sent:
        return arrays["candidates"].astype(np.float64)
    drawn = sample(arrays["mean"], arrays["scale"], seed, settings.population)
    return drawn.astype(np.float32).astype(np.float64)


class FedCmaServer:
    linear = True

    def __init__(self, config: FedCmaConfig, space: PromptSpace) -> None:
        self._config = config
        self._search = CmaEs(config.population, config.sigma, config.covariance)
        self._settings = settings(config)
        self._dim, self._offsets = space.dim, space.offsets

    def init(self, seed: int) -> CmaState:
        return self._search.init(np.zeros(self._dim))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        if self._settings.candidates_sent:
            return {"mean": self.prompt(state), "candidates": self._search.ask(state, seed).astype(np.float32)}
        scale = self._search.scale(state)
        if self._settings.expansion_sent:
            scale[self._dim - self._offsets :] = 0.0  # candidates have the mean's offsets, which cost none of them
        return {"mean": self.prompt(state), "scale": scale.astype(np.float32)}

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """`train_loss` is the mean loss of the round's population, or that of its mean where the step is Newton's."""
        total = merge(updates)
        average = {name: array / total.weight for name, array in total.arrays.items()}
        population = candidates(self.broadcast(state, seed), seed, self._settings)
        if self._settings.expansion_sent:
            return self._newton(state, population, average), {"train_loss": float(average["loss"][0])}
        losses = average["losses"]
        return self._search.tell(state, population, losses), {"train_loss": float(losses.mean())}

    def _newton(self, state: CmaState, population: Population, average: Arrays) -> CmaState:
        mean = self.prompt(state).astype(np.float64)  # as the clients scored it
        expansion = Expansion(float(average["loss"][0]), average["gradient"], _symmetric(average["hessian"]))
        moves = np.concatenate([population - mean, np.eye(self._dim)[self._dim - self._offsets :]])
        # No further than candidates lie: beyond them nobody has seen how scores change.
        radius = state.sigma * math.sqrt(self._dim)
        move = newton.step(mean, moves, expansion, self._config.ridge, self._config.damping, radius)
        return replace(state, mean=mean + move, generation=state.generation + 1)

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        if not self._settings.expansion_sent:
            return {"losses": (self._settings.population,)}
        number = self._settings.population + self._offsets
        return {"loss": (1,), "gradient": (number,), "hessian": (number * (number + 1) // 2,)}

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


class FedCmaClient:
    def __init__(self, settings: FedCmaSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        population = candidates(task.arrays, task.seed, self._settings)
        if self._settings.expansion_sent:
            arrays = self._expansion(np.concatenate([task.arrays["mean"][None], population]))
        else:
            arrays = {"losses": finite(self._objectives.loss(population))}
        weight = self._objectives.weight
        return Update({name: weight * array for name, array in arrays.items()}, weight, metrics={}), {}

    def _expansion(self, population: Population) -> dict[str, npt.NDArray[np.float64]]:
        found = self._objectives.expansion(population)
        return {
            "loss": finite(np.array([found.loss])),
            "gradient": np.nan_to_num(found.gradient),  # a candidate without scores pulls nowhere
            "hessian": found.hessian[np.triu_indices(len(found.gradient))],
        }

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)


def _symmetric(upper: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The matrix `[N, N]` whose upper triangle, row by row, is `[N (N + 1) / 2]`."""
    number = math.isqrt(2 * len(upper))
    matrix = np.zeros((number, number))
    matrix[np.triu_indices(number)] = upper
    return np.asarray(matrix + np.triu(matrix, 1).T)


def settings(config: FedCmaConfig) -> FedCmaSettings:
    return FedCmaSettings(
        population=config.population,
        candidates_sent=config.covariance == "full",
        expansion_sent=config.step == "newton",
    )


METHOD = Method(
    "fed-cma",
    FedCmaConfig,
    FedCmaSettings,
    settings,
    FedCmaServer,
    FedCmaClient,
    needs_scores=lambda settings: settings.expansion_sent,
)
