"""fed-cma: CMA-ES on the global objective, whatever the label skew.

Each round the server asks its CMA-ES for one population; every client scores the same candidates on its own examples
and returns its losses times n_k; they add up to n times the global loss sum_k (n_k / n) F^k(z), which the server tells.
P numbers travel up. Down travel mean and scale, from which the clients draw the candidates by the task's seed, or,
where the covariance is full, the candidates themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt.interfaces import Objectives
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.cmaes import CmaEs, CmaState, sample
from fedbbpt.optim.losses import finite
from fedbbpt.types import Arrays, MethodSettings, Metrics, Population, PromptSpace, Task, Update, merge, unpack


class FedCmaConfig(MethodConfig):
    """`[method]` of a job."""

    name: Literal["fed-cma"] = "fed-cma"
    population: int = Field(20, ge=4, le=1024, description="Candidates of a round.")
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="The first step size.")
    covariance: Literal["full", "diagonal"] = Field(
        "diagonal", description="full learns dependencies too, and sends all candidates down."
    )


@dataclass(frozen=True, slots=True)
class FedCmaSettings(MethodSettings):
    population: int
    """P"""
    candidates_sent: bool
    """Whether a broadcast holds `candidates`, or `mean` and `scale` to draw them from."""


def candidates(arrays: Arrays, seed: int, settings: FedCmaSettings) -> Population:
    """A round's candidates `[P, n]`, the same in both halves: rounded to float32, as the PTM is going to get them."""
    if settings.candidates_sent:
        return arrays["candidates"].astype(np.float64)
    drawn = sample(arrays["mean"], arrays["scale"], seed, settings.population)
    return drawn.astype(np.float32).astype(np.float64)


class FedCmaServer:
    linear = True

    def __init__(self, config: FedCmaConfig, space: PromptSpace) -> None:
        self._search = CmaEs(config.population, config.sigma, config.covariance)
        self._settings = settings(config)
        self._dim = space.dim

    def init(self, seed: int) -> CmaState:
        return self._search.init(np.zeros(self._dim))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        if self._settings.candidates_sent:
            return {"mean": self.prompt(state), "candidates": self._search.ask(state, seed).astype(np.float32)}
        return {"mean": self.prompt(state), "scale": self._search.scale(state).astype(np.float32)}

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """`train_loss` is the mean loss of the round's population."""
        total = merge(updates)
        losses = total.arrays["losses"] / total.weight
        population = candidates(self.broadcast(state, seed), seed, self._settings)
        return self._search.tell(state, population, losses), {"train_loss": float(losses.mean())}

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        return {"losses": (self._settings.population,)}

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


class FedCmaClient:
    def __init__(self, settings: FedCmaSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task) -> Update:
        losses = self._objectives.loss(candidates(task.arrays, task.seed, self._settings))
        weight = self._objectives.weight
        return Update({"losses": weight * finite(losses)}, weight, metrics={})

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)


def settings(config: FedCmaConfig) -> FedCmaSettings:
    return FedCmaSettings(population=config.population, candidates_sent=config.covariance == "full")


METHOD = Method("fed-cma", FedCmaConfig, FedCmaSettings, settings, FedCmaServer, FedCmaClient)
