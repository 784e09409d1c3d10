"""fedavg-bbt, the baseline of FedBPT and FedOne (arXiv 2310.01467, 2506.14929): local black-box tuning, averaged.

BBT (Black-Box Tuning, arXiv 2201.03514) is CMA-ES on z. Each round, every client k runs a CMA-ES of its own for
`local_iterations` generations from the broadcast mean and step size, and sends the mean m^k and the step size that it
ends with. The server averages both:

    m = sum_k (n_k / n) m^k

The covariance would restart in each round, so it stays the identity: with n = 100 or more, a round's few generations
change it by about 1 %. FedOne's reference code sends the best candidate instead of the mean, which is an option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt import seeds
from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.methods.update_rules import LOSS, NOT_NEGATIVE, UpdateRules, Weight
from fedbbpt.optim.cmaes import CmaEs
from fedbbpt.optim.losses import finite
from fedbbpt.types import Arrays, MethodSettings, Metrics, Task, Update, merge, unpack


class FedavgBbtConfig(MethodConfig):
    """The table `[method]` of a job."""

    name: Literal["fedavg-bbt"] = "fedavg-bbt"
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="Initial step size.")
    local_population: int = Field(20, ge=4, le=1024, description="Candidates in one generation of a client.")
    local_iterations: int = Field(4, ge=1, description="Generations that a client makes in a round.")
    sends: Literal["mean", "best"] = Field(
        "mean", description="The client's result: the mean of its search, or its best candidate (FedOne)."
    )


@dataclass(frozen=True, slots=True)
class FedavgBbtSettings(MethodSettings):
    """The part of the config that clients need."""

    local_population: int
    local_iterations: int
    best_sent: bool
    """Whether the array `mean` of an update holds the best candidate."""


@dataclass(frozen=True, slots=True)
class FedavgBbtState:
    """The server's state between two rounds."""

    mean: npt.NDArray[np.float64]
    """`[n]`"""
    sigma: float


class FedavgBbtServer:
    """Averages the clients' means and step sizes, weighted by their numbers of examples."""

    linear = True

    def __init__(self, config: FedavgBbtConfig, space: PromptSpace) -> None:
        self._config = config
        self._space = space

    def init(self, seed: int) -> FedavgBbtState:
        return FedavgBbtState(np.zeros(self._space.dim), self._config.sigma)

    def started(self, state: FedavgBbtState, z: npt.NDArray[np.float32]) -> FedavgBbtState:
        return FedavgBbtState(z.astype(np.float64), state.sigma)

    def broadcast(self, state: FedavgBbtState, seed: int) -> Arrays:
        return {"mean": self.prompt(state), "sigma": np.array([state.sigma], np.float32)}

    def step(self, state: FedavgBbtState, updates: Sequence[Update], seed: int) -> tuple[FedavgBbtState, Metrics]:
        """Averages mean and step size. `train_loss` is the mean loss of all candidates that the clients queried."""
        total = merge(updates)
        mean, sigma, loss = (total.arrays[name] / total.weight for name in ("mean", "sigma", "loss"))
        # A client could send a step size that is not positive.
        return FedavgBbtState(mean, max(float(sigma[0]), 1e-12)), {"train_loss": float(loss[0])}

    def displaced(self, update: Update, before: FedavgBbtState, after: FedavgBbtState, seed: int) -> Update:
        """Moves the mean by the difference of the broadcast means, and the step size by the ratio of the step sizes."""
        start, end = self.broadcast(before, seed), self.broadcast(after, seed)
        way = end["mean"].astype(np.float64) - start["mean"]
        factor = float(end["sigma"][0]) / float(start["sigma"][0])
        mean, sigma = update.arrays["mean"] + update.weight * way, update.arrays["sigma"] * factor
        return replace(update, arrays={**update.arrays, "mean": mean, "sigma": sigma})

    def prompt(self, state: FedavgBbtState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self, state: FedavgBbtState) -> Mapping[str, tuple[int, ...]]:
        return sums(settings(self._config), self._space)

    def restore(self, arrays: Arrays) -> FedavgBbtState:
        return unpack(FedavgBbtState, arrays)


class FedavgBbtClient:
    """Runs a CMA-ES from the broadcast mean and step size."""

    def __init__(self, settings: FedavgBbtSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        search = CmaEs(self._settings.local_population, float(task.arrays["sigma"][0]), "identity")
        state = search.init(task.arrays["mean"].astype(np.float64))
        best, best_loss, queried = state.mean, np.inf, []
        for generation in range(self._settings.local_iterations):
            seed = seeds.derive(task.seed, task.id.client_id, generation)
            population = search.ask(state, seed)
            losses = finite(self._objectives.loss(population, draw=seed))
            state = search.tell(state, population, losses)
            queried.append(losses.mean())
            if losses.min() < best_loss:
                best, best_loss = population[losses.argmin()], losses.min()
        weight = self._objectives.weight
        found = best if self._settings.best_sent else state.mean
        arrays = {"mean": found, "sigma": np.array([state.sigma]), "loss": np.array([np.mean(queried)])}
        return Update({name: weight * array for name, array in arrays.items()}, weight), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)


def settings(config: FedavgBbtConfig) -> FedavgBbtSettings:
    """Returns the settings that clients receive for a config."""
    return FedavgBbtSettings(config.local_population, config.local_iterations, best_sent=config.sends == "best")


def sums(settings: FedavgBbtSettings, space: PromptSpace) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of an update."""
    return {"mean": (space.dim,), "sigma": (1,), "loss": (1,)}


METHOD = Method(
    name="fedavg-bbt",
    config=FedavgBbtConfig,
    settings_type=FedavgBbtSettings,
    settings=settings,
    server=FedavgBbtServer,
    client=FedavgBbtClient,
    sums=sums,
    rules=lambda settings: UpdateRules(Weight.EXAMPLES, {"sigma": NOT_NEGATIVE, "loss": LOSS}),
    point=lambda settings: "mean",
    stale=lambda config: "",
    downlink="float16",
)
