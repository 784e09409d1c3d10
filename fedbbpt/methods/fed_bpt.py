"""fed-bpt (FedBPT, arXiv 2310.01467): clients search, and the server takes their results for a population of its own.

Each round every client runs a CMA-ES of its own for I iterations of lambda_k candidates from the broadcast mean and
step size, and sends its final mean z^k, the loss F^k there and its step sizes. The server makes one CMA-ES step over
the z^k with the step size of equation 6. The covariance stays the identity on the server: at n = 500 it moves less than
1 % in 200 rounds, and what is broadcast is then all that there is.

Two ways up. By "mean" a client sends what it found. By "ranks" it sends how each generation's best candidates were
ordered, and the server, which can draw the same candidates, walks the same way to the same mean (`walk`).

The paper says nothing of the clients' next step size. As in the reference implementation (NVFlare, research/fed-bpt) it
changes by the factor by which the server's step size changed in its CMA-ES step.

Above 300 lines: one paper, with its code's variants and two local searches.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbbpt import seeds
from fedbbpt.interfaces import Objective, Objectives, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.cmaes import CmaEs, CmaState, Covariance
from fedbbpt.optim.losses import finite
from fedbbpt.toml.section import contradiction
from fedbbpt.types import (
    Arrays,
    Losses,
    MethodSettings,
    Metrics,
    Orders,
    Perturbation,
    Population,
    Task,
    Update,
    unpack,
)

Vector = npt.NDArray[np.float64]
Order = npt.NDArray[np.uint8]

MIN_PERTURBED_LOSS = 1e-6
"""Nats; what is below is rounding of float32 scores, and would make of one example's ratio all of the objective."""


def _pycma() -> Any:
    """Imported by who searches with it: it loads SciPy where there is one, which takes as long as all the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where matplotlib is missing
        import cma
    return cma


class FedBptConfig(MethodConfig):
    """`[method]` of a job; the defaults are the paper's."""

    name: Literal["fed-bpt"] = "fed-bpt"
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="The first step size.")
    local_population: int = Field(5, ge=3, le=256, description="Candidates of a client in one iteration.")
    local_iterations: int = Field(8, ge=1, description="Iterations of a client in a round.")
    local_covariance: Covariance = Field(
        "full", description="Of a client's search: full (paper), or diagonal or identity, which the server can replay."
    )
    perturb_rate: float = Field(
        0.5, ge=0, le=1, description="Tokens replaced in the perturbed objective, which doubles queries; 0: plain loss."
    )
    perturb_ratio: Literal["examples", "means"] = Field(
        "examples", description="The mean of the examples' ratios (paper), or the ratio of the mean losses (its code)."
    )
    common_seed: bool = Field(False, description="Whether all clients draw the same candidates, as in its code.")
    parents: Literal["half", "all"] = Field(
        "half", description="Clients that the server's step recombines: the better half (paper) or all (its code)."
    )
    norm_limit: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Longer candidates are shortened to it (its code: 15); 0: none are."
    )
    norm_limit_top: float = Field(
        20.0, ge=0, allow_inf_nan=False, description="norm_limit grows by 1 a round until it is there."
    )
    uplink: Literal["mean", "ranks"] = Field(
        "mean", description="What goes up: what the search found, or the orders from which the server finds it too."
    )

    @model_validator(mode="after")
    def _ranks_can_be_replayed(self) -> "FedBptConfig":
        if self.uplink == "ranks" and self.local_covariance == "full":
            what = "ranks, and local_covariance is full, whose linear algebra differs between machines"
            raise contradiction("uplink", what, "local_covariance = 'identity' or 'diagonal'")
        return self


@dataclass(frozen=True, slots=True)
class FedBptSettings(MethodSettings):
    local_population: int
    """lambda_k"""
    local_iterations: int
    """I"""
    perturb_rate: float
    """r_p; 0 for the plain loss."""
    common_seed: bool
    local_covariance: Covariance
    ratio_of_means: bool
    orders_sent: bool
    """Whether an update holds `orders`, or `mean` and `sigmas`."""


def corrected_sigma(sigmas: Vector, losses: Losses, local_population: int, parents: Literal["half", "all"]) -> float:
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


def shorten(population: Population, arrays: Arrays) -> Population:
    """The norm guard of the reference implementation: candidates `[P, n]`, none longer than the broadcast limit."""
    if "limit" not in arrays:
        return population
    lengths = np.linalg.norm(population, axis=1, keepdims=True)
    shortened: Population = population / np.maximum(lengths / float(arrays["limit"][0]), 1.0)
    return shortened


def client_seed(task_seed: int, client_id: str, common: bool) -> int:
    return task_seed if common else seeds.derive(task_seed, client_id)


def walk(
    settings: FedBptSettings, arrays: Arrays, seed: int, order: Callable[[int, Population], Order]
) -> tuple[Vector, Vector]:
    """A local search that both halves can make: its mean `[n]` and its step sizes `[I]`, from a broadcast.

    `order` gives the indices of a generation's mu = lambda_k / 2 best candidates, best first: the client asks its
    objective, the server reads what the client sent. Nothing else of the losses enters a CMA-ES without negative
    weights. Candidates are float32, as the PTM gets them.
    """
    search = CmaEs(settings.local_population, float(arrays["sigma"][0]), settings.local_covariance)
    state = search.init(arrays["mean"].astype(np.float64))
    sigmas = []
    for generation in range(settings.local_iterations):
        sigmas.append(state.sigma)
        drawn = shorten(search.ask(state, seeds.derive(seed, "generation", generation)), arrays)
        population = drawn.astype(np.float32).astype(np.float64)
        best = order(generation, population)
        places = np.full(len(population), float(len(best)))
        places[best] = np.arange(len(best))
        state = search.tell(state, population, places)
    return shorten(state.mean[None], arrays)[0], np.array(sigmas)


class FedBptServer:
    linear = False

    def __init__(self, config: FedBptConfig, space: PromptSpace) -> None:
        self._config, self._settings = config, settings(config)
        self._dim = space.dim
        # The population is whoever answers: `tell` takes any number, and nobody asks.
        self._search = CmaEs(population=0, sigma=config.sigma, covariance="identity", parents=config.parents)

    def init(self, seed: int) -> CmaState:
        """Between rounds the state's sigma is the clients' step size."""
        return self._search.init(np.zeros(self._dim))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        arrays = {"mean": self.prompt(state), "sigma": np.array([state.sigma], np.float32)}
        first, top = self._config.norm_limit, self._config.norm_limit_top
        if first:
            arrays["limit"] = np.array([min(first + state.generation, max(first, top))], np.float32)
        return arrays

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """`train_loss` is the mean of the clients' losses at their own means: of the ratios, where they perturb."""
        found = [self._found(state, update, seed) for update in updates]
        means, sigmas = np.stack([mean for mean, _ in found]), np.stack([sigmas for _, sigmas in found])
        # CMA-ES changes its step size by a factor of e at most, so nothing honest lies outside.
        reach = math.exp(self._config.local_iterations)
        sigmas = np.clip(sigmas, state.sigma / reach, state.sigma * reach)
        losses = np.array([update.arrays["loss"][0] / update.weight for update in updates])
        sigma = corrected_sigma(sigmas, losses, self._config.local_population, self._config.parents)
        spread = replace(state, sigma=sigma)
        told = self._search.tell(spread, clip(means, spread), losses)
        return replace(told, sigma=state.sigma * told.sigma / sigma), {"train_loss": float(losses.mean())}

    def _found(self, state: CmaState, update: Update, seed: int) -> tuple[Vector, Vector]:
        """A client's mean `[n]` and step sizes `[I]`."""
        if not self._settings.orders_sent:
            return update.arrays["mean"] / update.weight, update.arrays["sigmas"] / update.weight
        own = client_seed(seed, update.client_id, self._settings.common_seed)
        orders = update.arrays["orders"]
        return walk(self._settings, self.broadcast(state, seed), own, lambda generation, _: orders[generation])

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self) -> Mapping[str, tuple[int, ...] | Orders]:
        iterations, candidates = self._config.local_iterations, self._config.local_population
        if self._settings.orders_sent:
            return {"orders": Orders(iterations, candidates // 2, candidates), "loss": (1,)}
        return {"mean": (self._dim,), "loss": (1,), "sigmas": (iterations,)}

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


class FedBptClient:
    def __init__(self, settings: FedBptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        seed = client_seed(task.seed, task.id.client_id, self._settings.common_seed)
        objective = self._objective(seed)
        orders: list[Order] = []

        def order(generation: int, population: Population) -> Order:
            ranked = np.argsort(finite(objective(population)), kind="stable")
            orders.append(ranked[: len(population) // 2].astype(np.uint8))
            return orders[-1]

        if self._settings.local_covariance == "full":
            mean, sigmas = self._search(task.arrays, seed, objective)
        else:
            mean, sigmas = walk(self._settings, task.arrays, seed, order)
        arrays = {"orders": np.stack(orders)} if self._settings.orders_sent else {"mean": mean, "sigmas": sigmas}
        loss = finite(objective(mean[None]))
        # Weight 1, not n_k: to the server a client's mean is one candidate like any other (equation 6 and algorithm 1).
        return Update({**arrays, "loss": loss}, weight=1.0, metrics={}), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)

    def _search(self, arrays: Arrays, seed: int, objective: Objective) -> tuple[Vector, Vector]:
        """The mean `[n]` and the step sizes `[I]` of pycma, which is what the reference implementation searches with.

        Beside a full covariance it has negative weights and, for fewer than six candidates, replaces one of them by
        the mirror image of the worst before.
        """
        cma = _pycma()
        rng = seeds.rng(seed, "fed-bpt")
        search = cma.CMAEvolutionStrategy(
            arrays["mean"].astype(np.float64),
            float(arrays["sigma"][0]),
            {
                "popsize": self._settings.local_population,
                # (43) and (44) of CMA-ES; from 300 dimensions on pycma 4 would take another rule by itself.
                "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
                "randn": lambda *shape: rng.standard_normal(shape),
                "seed": math.nan,  # leaves numpy's global generator alone
                "verbose": -10,  # no output, no files
            },
        )
        sigmas = []
        for _ in range(self._settings.local_iterations):
            sigmas.append(search.sigma)
            population = shorten(np.array(search.ask()), arrays)
            losses = finite(objective(population))
            with warnings.catch_warnings():
                # It misses a mirror image that was shortened.
                warnings.simplefilter("ignore", cma.evolution_strategy.InjectionWarning)
                search.tell(list(population), list(losses))
        return shorten(search.mean[None], arrays)[0], np.array(sigmas)

    def _objective(self, seed: int) -> Objective:
        """The local loss, or equation 7: its ratio to the loss on perturbed inputs, which are drawn anew each round.

        The paper writes the sum of the examples' ratios. It is the mean here: under unlike n_k the server would
        compare sums of unlike many, and the paper's own objective weighs F^k by n_k / n.
        """
        if not self._settings.perturb_rate:
            return self._objectives.loss
        perturbation = Perturbation(self._settings.perturb_rate, seeds.derive(seed, "perturbation"))

        def ratio(population: Population) -> Losses:
            clean = self._objectives.each(population)  # L(f(Az; x_i), y_i), [P, B]
            perturbed = self._objectives.each(population, perturbation)  # L(f(Az; x~_i), y_i), [P, B]
            if self._settings.ratio_of_means:
                clean, perturbed = clean.mean(axis=1, keepdims=True), perturbed.mean(axis=1, keepdims=True)
            # No number at all where the perturbed loss is none, rather than a ratio of 0.
            divisor = np.where(np.isfinite(perturbed), np.maximum(perturbed, MIN_PERTURBED_LOSS), np.nan)
            ratios: Losses = (clean / divisor).mean(axis=1)
            return ratios

        return ratio


def settings(config: FedBptConfig) -> FedBptSettings:
    return FedBptSettings(
        local_population=config.local_population,
        local_iterations=config.local_iterations,
        perturb_rate=config.perturb_rate,
        common_seed=config.common_seed,
        local_covariance=config.local_covariance,
        ratio_of_means=config.perturb_ratio == "means",
        orders_sent=config.uplink == "ranks",
    )


METHOD = Method(
    "fed-bpt",
    FedBptConfig,
    FedBptSettings,
    settings,
    FedBptServer,
    FedBptClient,
    needs_scores=lambda settings: settings.perturb_rate > 0,
)
