"""fed-bpt (FedBPT, arXiv 2310.01467): clients run CMA-ES, and the server treats their results as its own population.

Each round, every client k runs a CMA-ES of its own for I iterations of lambda_k candidates, from the broadcast mean and
step size. It sends its final mean z^k, the loss F^k there, and its step sizes sigma^k_1..I. The server makes one CMA-ES
step with the z^k as its population, the F^k as their losses, and the step size of equation 6. The server's covariance
stays the identity: at n = 500 it would change by less than 1 % in 200 rounds, and the mean and the step size are then
all that a broadcast needs.

An update has one of two forms. With `uplink = "mean"` a client sends what it found. With `uplink = "ranks"` it sends
the order of each generation's best candidates; the server draws the same candidates and repeats the client's search to
the same mean (`local_search`).

The paper does not say how the clients' step size changes. As in the reference implementation (NVFlare,
research/fed-bpt), it changes by the factor by which the server's step size changes in its CMA-ES step.

This file exceeds 300 lines because it holds one paper, the variants of its reference code, and two local searches.

Above 300 lines, because the config, the settings and both halves of one paper share a file.
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
from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.methods.update_rules import LOSS, NOT_NEGATIVE, UpdateRules, Weight
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
LocalObjective = Callable[[Population, int], Losses]
"""A client's objective `[P]` of candidates `[P, n]`, on the examples of a generation, counted from 0."""

MIN_PERTURBED_LOSS = 1e-6
"""Lower bound, in nats, of the divisor in equation 7.

A smaller loss is rounding error of float32 scores, and dividing by it would let one example dominate the objective.
"""


def _pycma() -> Any:
    """Imports pycma on first use: it imports SciPy, if installed, which takes as long as all other imports together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycma warns if matplotlib is missing
        import cma
    return cma


class FedBptConfig(MethodConfig):
    """The table `[method]` of a job. The defaults are the paper's."""

    name: Literal["fed-bpt"] = "fed-bpt"
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="Initial step size.")
    local_population: int = Field(5, ge=3, le=256, description="Candidates in one iteration of a client.")
    local_iterations: int = Field(8, ge=1, description="Iterations that a client makes in a round.")
    local_covariance: Covariance = Field(
        "full", description="Covariance of a client's search: full (paper), or one that the server can repeat."
    )
    perturb_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of tokens replaced in the perturbed objective, which doubles queries; 0: off.",
    )
    perturb_ratio: Literal["examples", "means"] = Field(
        "examples", description="Mean of the examples' ratios (paper), or ratio of the mean losses (its code)."
    )
    common_seed: bool = Field(
        False, description="Whether all clients draw the same candidates, as in the paper's code."
    )
    parents: Literal["half", "all"] = Field(
        "half", description="Clients whose means the server's step combines: the better half (paper) or all (its code)."
    )
    norm_limit: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Longer candidates are shortened to this norm (paper's code: 15); 0: no limit.",
    )
    norm_limit_top: float = Field(
        20.0, ge=0, allow_inf_nan=False, description="norm_limit grows by 1 in each round up to this value."
    )
    uplink: Literal["mean", "ranks"] = Field(
        "mean", description="Contents of an update: the mean found, or ranks, from which the server finds it too."
    )

    @model_validator(mode="after")
    def _ranks_can_be_replayed(self) -> "FedBptConfig":
        if self.uplink == "ranks" and self.local_covariance == "full":
            what = "ranks cannot be repeated if local_covariance is full: its linear algebra differs between machines"
            raise contradiction("uplink", what, "local_covariance = 'identity' or 'diagonal'")
        return self


@dataclass(frozen=True, slots=True)
class FedBptSettings(MethodSettings):
    """The part of the config that clients need."""

    local_population: int
    """lambda_k"""
    local_iterations: int
    """I"""
    perturb_rate: float
    """r_p of equation 7; 0 selects the plain loss."""
    common_seed: bool
    """Whether all clients draw from the task's seed, instead of each from its own."""
    local_covariance: Covariance
    ratio_of_means: bool
    """Whether equation 7 is the ratio of the mean losses, instead of the mean of the examples' ratios."""
    orders_sent: bool
    """Whether an update holds `orders`, instead of `mean` and `sigmas`."""


def corrected_sigma(sigmas: Vector, losses: Losses, local_population: int, parents: Literal["half", "all"]) -> float:
    """Returns the step size that corresponds to the spread of the clients' means, sigma' of equation 6.

    "half" is the paper's formula, over the better half S' of the clients S:

        sigma' = 2 sqrt(sum_{k in S'} sum_j (sigma^k_j)^2 / (|S| lambda_k))

    "all" is the reference implementation's, over all clients and with the integer number of local parents.

    Args:
        sigmas: The clients' step sizes `[K, I]`.
        losses: The clients' losses `[K]`.
    """
    clients = len(losses)
    if parents == "all":
        return math.sqrt((sigmas**2).sum() / (clients * (local_population // 2)))
    better = np.argsort(losses, kind="stable")[: max(clients // 2, 1)]
    # 2 |S'| stands for |S|: it is the same if |S| is even, and keeps the mean over S' if it is odd.
    return 2 * math.sqrt((sigmas[better] ** 2).sum() / (2 * len(better) * local_population))


def clip(population: Population, state: CmaState) -> Population:
    """Moves candidates `[P, n]` that N(mean, sigma^2 I) would hardly draw back to a plausible distance, like pycma."""
    n = len(state.mean)
    steps = population - state.mean
    lengths = np.linalg.norm(steps, axis=1, keepdims=True) / state.sigma
    clipped: Population = state.mean + steps / np.maximum(lengths / (math.sqrt(n) + 2 * n / (n + 2)), 1.0)
    return clipped


def shorten(population: Population, arrays: Arrays) -> Population:
    """Returns the candidates `[P, n]`, none longer than the broadcast limit: the reference code's norm guard."""
    if "limit" not in arrays:
        return population
    lengths = np.linalg.norm(population, axis=1, keepdims=True)
    shortened: Population = population / np.maximum(lengths / float(arrays["limit"][0]), 1.0)
    return shortened


def client_seed(task_seed: int, client_id: str, common: bool) -> int:
    """Returns the seed from which a client draws its candidates in a round."""
    return task_seed if common else seeds.derive(task_seed, client_id)


def local_search(
    settings: FedBptSettings, arrays: Arrays, seed: int, order: Callable[[int, Population], Order]
) -> tuple[Vector, Vector]:
    """Runs the local search from a broadcast, the same in both halves, and returns its mean `[n]` and step sizes `[I]`.

    A CMA-ES without negative weights uses nothing of the losses but the order of the best candidates, so the server can
    repeat the search from the orders that a client sends.

    Args:
        order: Returns the indices of a generation's mu = lambda_k / 2 best candidates, best first. The client queries
            its objective; the server reads the update. Candidates `[P, n]` are in float32, as the PTM gets them.
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
    """Makes one CMA-ES step with the clients' means as its population."""

    linear = False

    def __init__(self, config: FedBptConfig, space: PromptSpace) -> None:
        self._config, self._settings = config, settings(config)
        self._dim = space.dim
        # The population size is not used: the clients that answer are the population, and `ask` is never called.
        self._search = CmaEs(population=0, sigma=config.sigma, covariance="identity", parents=config.parents)

    def init(self, seed: int) -> CmaState:
        """Returns the first state. Between rounds, the state's sigma is the clients' step size."""
        return self._search.init(np.zeros(self._dim))

    def started(self, state: CmaState, z: npt.NDArray[np.float32]) -> CmaState:
        return self._search.init(z.astype(np.float64))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        arrays = {"mean": self.prompt(state), "sigma": np.array([state.sigma], np.float32)}
        first, top = self._config.norm_limit, self._config.norm_limit_top
        if first:
            arrays["limit"] = np.array([min(first + state.generation, max(first, top))], np.float32)
        return arrays

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """Returns the next state. `train_loss` is the mean of the clients' objectives at their own means."""
        found = [self._found(state, update, seed) for update in updates]
        means, sigmas = np.stack([mean for mean, _ in found]), np.stack([sigmas for _, sigmas in found])
        # CMA-ES changes its step size by a factor of at most e in an iteration, so honest step sizes are not changed.
        reach = math.exp(self._config.local_iterations)
        sigmas = np.clip(sigmas, state.sigma / reach, state.sigma * reach)
        losses = np.array([update.arrays["loss"][0] / update.weight for update in updates])
        sigma = corrected_sigma(sigmas, losses, self._config.local_population, self._config.parents)  # (6)
        spread = replace(state, sigma=sigma)
        told = self._search.tell(spread, clip(means, spread), losses)
        return replace(told, sigma=state.sigma * told.sigma / sigma), {"train_loss": float(losses.mean())}

    def _found(self, state: CmaState, update: Update, seed: int) -> tuple[Vector, Vector]:
        """Returns a client's mean `[n]` and step sizes `[I]`."""
        if not self._settings.orders_sent:
            return update.arrays["mean"] / update.weight, update.arrays["sigmas"] / update.weight
        own = client_seed(seed, update.client_id, self._settings.common_seed)
        orders = update.arrays["orders"]
        return local_search(self._settings, self.broadcast(state, seed), own, lambda generation, _: orders[generation])

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self, state: CmaState) -> Mapping[str, tuple[int, ...] | Orders]:
        iterations, candidates = self._config.local_iterations, self._config.local_population
        if self._settings.orders_sent:
            return {"orders": Orders(iterations, candidates // 2, candidates), "loss": (1,)}
        return {"mean": (self._dim,), "loss": (1,), "sigmas": (iterations,)}

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


class FedBptClient:
    """Runs a CMA-ES from the broadcast mean and step size."""

    def __init__(self, settings: FedBptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        seed = client_seed(task.seed, task.id.client_id, self._settings.common_seed)
        objective = self._objective(task, seed)
        orders: list[Order] = []

        def order(generation: int, population: Population) -> Order:
            ranked = np.argsort(finite(objective(population, generation)), kind="stable")
            orders.append(ranked[: len(population) // 2].astype(np.uint8))
            return orders[-1]

        if self._settings.local_covariance == "full":
            mean, sigmas = self._pycma_search(task.arrays, seed, objective)
        else:
            mean, sigmas = local_search(self._settings, task.arrays, seed, order)
        arrays = {"orders": np.stack(orders)} if self._settings.orders_sent else {"mean": mean, "sigmas": sigmas}
        loss = finite(objective(mean[None], self._settings.local_iterations))
        # The weight is 1, not n_k: to the server every client's mean is one candidate (equation 6 and algorithm 1).
        return Update({**arrays, "loss": loss}, weight=1.0), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)

    def _pycma_search(self, arrays: Arrays, seed: int, objective: LocalObjective) -> tuple[Vector, Vector]:
        """Returns the mean `[n]` and the step sizes `[I]` of pycma, the search of the reference implementation.

        Besides a full covariance, pycma has negative weights and, with fewer than six candidates, replaces one of them
        by the mirror image of the previous generation's worst.
        """
        cma = _pycma()
        rng = seeds.rng(seed, "fed-bpt")
        search = cma.CMAEvolutionStrategy(
            arrays["mean"].astype(np.float64),
            float(arrays["sigma"][0]),
            {
                "popsize": self._settings.local_population,
                # Equations 43 and 44 of CMA-ES; from 300 dimensions on, pycma 4 would choose another rule by itself.
                "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
                "randn": lambda *shape: rng.standard_normal(shape),
                "seed": math.nan,  # leaves NumPy's global generator alone
                "verbose": -10,  # no output, no files
            },
        )
        sigmas = []
        for generation in range(self._settings.local_iterations):
            sigmas.append(search.sigma)
            population = shorten(np.array(search.ask()), arrays)
            losses = finite(objective(population, generation))
            with warnings.catch_warnings():
                # pycma warns about a mirror image that was shortened.
                warnings.simplefilter("ignore", cma.evolution_strategy.InjectionWarning)
                search.tell(list(population), list(losses))
        return shorten(search.mean[None], arrays)[0], np.array(sigmas)

    def _objective(self, task: Task, seed: int) -> LocalObjective:
        """Returns the local loss or, with perturbed inputs, its ratio to their loss (equation 7), by generation.

        Inputs are perturbed anew in each round. The paper writes the sum of the examples' ratios, and this is their
        mean: with different n_k the server would compare sums of different lengths, and the paper's global objective
        weights F^k by n_k / n.
        """

        def draw(generation: int) -> int:
            return seeds.derive(task.seed, task.id.client_id, generation)

        if not self._settings.perturb_rate:
            return lambda population, generation: self._objectives.loss(population, draw(generation))
        perturbation = Perturbation(self._settings.perturb_rate, seeds.derive(seed, "perturbation"))

        def ratio(population: Population, generation: int) -> Losses:
            clean = self._objectives.each(population, None, draw(generation))  # L(f(Az; x_i), y_i), [P, B]
            # L(f(Az; x~_i), y_i), [P, B]
            perturbed = self._objectives.each(population, perturbation, draw(generation))
            if self._settings.ratio_of_means:
                clean, perturbed = clean.mean(axis=1, keepdims=True), perturbed.mean(axis=1, keepdims=True)
            # NaN if the perturbed loss is not finite: a ratio of 0 would rank such a candidate best.
            divisor = np.where(np.isfinite(perturbed), np.maximum(perturbed, MIN_PERTURBED_LOSS), np.nan)
            ratios: Losses = (clean / divisor).mean(axis=1)  # (7)
            return ratios

        return ratio


def settings(config: FedBptConfig) -> FedBptSettings:
    """Returns the settings that clients receive for a config."""
    return FedBptSettings(
        local_population=config.local_population,
        local_iterations=config.local_iterations,
        perturb_rate=config.perturb_rate,
        common_seed=config.common_seed,
        local_covariance=config.local_covariance,
        ratio_of_means=config.perturb_ratio == "means",
        orders_sent=config.uplink == "ranks",
    )


def _why_undefended(config: FedBptConfig, rule: str) -> str:
    if config.uplink == "ranks":
        return "its clients send orders of candidates, each of its own ones, which cannot be compared"
    return "" if rule == "krum" else "its server needs each client's result, and a mean or median of them is one result"


def rules(settings: FedBptSettings) -> UpdateRules:
    """Returns what every honest update satisfies."""
    # Equation 7 divides the loss by one that may be small.
    ranges = {"loss": NOT_NEGATIVE if settings.perturb_rate else LOSS}
    return UpdateRules(Weight.ONE, ranges if settings.orders_sent else {**ranges, "sigmas": NOT_NEGATIVE})


METHOD = Method(
    name="fed-bpt",
    config=FedBptConfig,
    settings_type=FedBptSettings,
    settings=settings,
    server=FedBptServer,
    client=FedBptClient,
    needs_scores=lambda settings: settings.perturb_rate > 0,
    rules=rules,
    point=lambda settings: "mean",
    undefended=_why_undefended,
    stale=lambda config: "its server ranks the clients by their losses, which must be of searches from one mean",
    downlink="float16",
)
