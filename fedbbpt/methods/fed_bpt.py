"""fed-bpt (FedBPT, arXiv 2310.01467): clients search, and the server takes their results for a population of its own.

Each round every client runs a CMA-ES of its own (pycma) for I iterations of lambda_k candidates from the broadcast
mean and step size, and sends its final mean z^k, the loss F^k there and its step sizes. The server makes one CMA-ES
step over the z^k with the step size of equation 6. The covariance stays the identity on the server: at n = 500 it moves
less than 1 % in 200 rounds, and what is broadcast is then all that there is.

The paper says nothing of the clients' next step size. As in the reference implementation (NVFlare, research/fed-bpt) it
changes by the factor by which the server's step size changed in its CMA-ES step.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt import seeds
from fedbbpt.interfaces import Objective, Objectives
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.cmaes import CmaEs, CmaState
from fedbbpt.optim.losses import finite
from fedbbpt.types import (
    Arrays,
    Losses,
    MethodSettings,
    Metrics,
    Perturbation,
    Population,
    PromptSpace,
    Task,
    Update,
    unpack,
)


def _pycma() -> Any:
    """Imported by who searches with it: it loads SciPy where there is one, which takes as long as all the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where matplotlib is missing
        import cma
    return cma


class FedBptConfig(MethodConfig):
    """`[method]` of a job; the defaults are the paper's, but for its perturbed objective, which doubles the queries."""

    name: Literal["fed-bpt"] = "fed-bpt"
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="The first step size.")
    local_population: int = Field(5, ge=3, description="Candidates of a client in one iteration.")
    local_iterations: int = Field(8, ge=1, description="Iterations of a client in a round.")
    perturb_rate: float = Field(
        0.0, ge=0, le=1, description="Tokens replaced in the perturbed objective; 0: plain loss."
    )
    common_seed: bool = Field(False, description="Whether all clients draw the same candidates.")
    parents: Literal["half", "all"] = Field(
        "half", description="Clients that the server's step recombines: the better half (paper) or all (its code)."
    )


@dataclass(frozen=True, slots=True)
class FedBptSettings(MethodSettings):
    local_population: int
    """lambda_k"""
    local_iterations: int
    """I"""
    perturb_rate: float
    """r_p; 0 for the plain loss."""
    common_seed: bool


def corrected_sigma(
    sigmas: npt.NDArray[np.float64], losses: Losses, local_population: int, parents: Literal["half", "all"]
) -> float:
    """The step size that the clients' means are spread by, from their own step sizes `[K, I]` and losses `[K]`.

    "half" is equation 6, over the better half S' of the clients S: 2 sqrt(sum_S' sum_j sigma_j^2 / (|S| lambda_k)).
    "all" is the reference implementation's, over all of them and with the integer number of local parents.
    """
    clients = len(losses)
    if parents == "all":
        return math.sqrt((sigmas**2).sum() / (clients * (local_population // 2)))
    better = np.argsort(losses, kind="stable")[: max(clients // 2, 1)]
    # 2 |S'| for |S|: the same where |S| is even, and the mean over S' still where it is odd.
    return 2 * math.sqrt((sigmas[better] ** 2).sum() / (2 * len(better) * local_population))


def clip(population: Population, state: CmaState) -> Population:
    """Brings candidates `[P, n]` that N(mean, sigma^2 I) would hardly have drawn back to its rim, as pycma does."""
    n = len(state.mean)
    steps = population - state.mean
    lengths = np.linalg.norm(steps, axis=1, keepdims=True) / state.sigma
    clipped: Population = state.mean + steps / np.maximum(lengths / (math.sqrt(n) + 2 * n / (n + 2)), 1.0)
    return clipped


class FedBptServer:
    linear = False

    def __init__(self, config: FedBptConfig, space: PromptSpace) -> None:
        self._config = config
        self._dim = space.dim
        # The population is whoever answers: `tell` takes any number, and nobody asks.
        self._search = CmaEs(population=0, sigma=config.sigma, covariance="identity", parents=config.parents)

    def init(self, seed: int) -> CmaState:
        """Between rounds the state's sigma is the clients' step size."""
        return self._search.init(np.zeros(self._dim))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        return {"mean": self.prompt(state), "sigma": np.array([state.sigma], np.float32)}

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """`train_loss` is the mean of the clients' losses at their own means: of the ratios, where they perturb."""
        weights = np.array([update.weight for update in updates])[:, None]
        means = np.stack([update.arrays["mean"] for update in updates]) / weights
        sigmas = np.stack([update.arrays["sigmas"] for update in updates]) / weights
        # CMA-ES changes its step size by a factor of e at most, so nothing honest lies outside.
        reach = math.exp(self._config.local_iterations)
        sigmas = np.clip(sigmas, state.sigma / reach, state.sigma * reach)
        losses = (np.stack([update.arrays["loss"] for update in updates]) / weights)[:, 0]
        sigma = corrected_sigma(sigmas, losses, self._config.local_population, self._config.parents)
        spread = replace(state, sigma=sigma)
        told = self._search.tell(spread, clip(means, spread), losses)
        return replace(told, sigma=state.sigma * told.sigma / sigma), {"train_loss": float(losses.mean())}

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        return {"mean": (self._dim,), "loss": (1,), "sigmas": (self._config.local_iterations,)}

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


class FedBptClient:
    def __init__(self, settings: FedBptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task) -> Update:
        seed = task.seed if self._settings.common_seed else seeds.derive(task.seed, task.id.client_id)
        objective = self._objective(seed)
        rng = seeds.rng(seed, "fed-bpt")
        search = _pycma().CMAEvolutionStrategy(
            task.arrays["mean"].astype(np.float64),
            float(task.arrays["sigma"][0]),
            {
                "popsize": self._settings.local_population,
                "randn": lambda *shape: rng.standard_normal(shape),
                "seed": math.nan,  # leaves numpy's global generator alone
                "verbose": -10,  # no output, no files
            },
        )
        sigmas = []
        for _ in range(self._settings.local_iterations):
            sigmas.append(search.sigma)
            population = search.ask()
            search.tell(population, list(finite(objective(np.array(population)))))
        loss = finite(objective(search.mean[None]))
        # Weight 1, not n_k: to the server a client's mean is one candidate like any other (equation 6 and algorithm 1).
        return Update({"mean": search.mean, "loss": loss, "sigmas": np.array(sigmas)}, weight=1.0, metrics={})

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)

    def _objective(self, seed: int) -> Objective:
        """The local loss, or its ratio to that on perturbed inputs, which are drawn anew each round (equation 7).

        The ratio is that of the mean losses, as in the reference implementation.
        """
        if not self._settings.perturb_rate:
            return self._objectives.loss
        perturbation = Perturbation(self._settings.perturb_rate, seeds.derive(seed, "perturbation"))
        perturbed = self._objectives.perturbed(perturbation)

        def ratio(population: Population) -> Losses:
            with np.errstate(divide="ignore", invalid="ignore"):
                return self._objectives.loss(population) / perturbed(population)

        return ratio


def settings(config: FedBptConfig) -> FedBptSettings:
    return FedBptSettings(config.local_population, config.local_iterations, config.perturb_rate, config.common_seed)


METHOD = Method("fed-bpt", FedBptConfig, FedBptSettings, settings, FedBptServer, FedBptClient)
