"""fed-cem, a method of your own in one file: the cross-entropy method on the federation's loss.

Each round, every client scores the same candidates z + sigma x N(0, I) on its own examples, and sends its losses times
its number of examples. They add up to the global loss of each candidate, and the server moves z to the mean of the
better half.

    python examples/own_method.py

simulates it. To use it in `fedbbpt run` and over gRPC, package this file and install the package on the coordinator
and on every client. Its pyproject.toml offers the method under the name that jobs use:

    [project.entry-points."fedbbpt.methods"]
    fed-cem = "own_method:METHOD"
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

import fedbbpt
from fedbbpt import seeds
from fedbbpt.optim.losses import finite
from fedbbpt.types import Arrays, Metrics, Population


class Config(fedbbpt.MethodConfig):
    """The table [method] of a job."""

    name: Literal["fed-cem"] = "fed-cem"
    population: int = Field(12, ge=2, le=256, description="Candidates in a round.")
    sigma: float = Field(0.5, gt=0, description="Initial distance of the candidates from z.")
    decay: float = Field(0.9, gt=0, le=1, description="Factor by which the distance shrinks in a round.")


@dataclass(frozen=True)
class Settings(fedbbpt.MethodSettings):
    """The part of the config that clients need. They receive z and sigma in each round."""

    population: int


@dataclass(frozen=True)
class State:
    """The server's state between two rounds. It is stored, so its fields are arrays and numbers."""

    z: npt.NDArray[np.float64]
    sigma: float


def candidates(arrays: Arrays, seed: int, population: int) -> Population:
    """Returns the candidates `[P, n]` of a round. Both halves call it with the same broadcast and seed."""
    return arrays["z"] + arrays["sigma"] * seeds.normals(seed, (population, len(arrays["z"])))


class Server:
    """Moves z to the mean of the better half of the candidates."""

    linear = True  # the sum of all updates is all that `step` uses

    def __init__(self, config: Config, space: fedbbpt.PromptSpace) -> None:
        self._config, self._dim = config, space.dim

    def init(self, seed: int) -> State:
        return State(np.zeros(self._dim), self._config.sigma)

    def broadcast(self, state: State, seed: int) -> Arrays:
        return {"z": self.prompt(state), "sigma": np.array([state.sigma], np.float32)}

    def step(self, state: State, updates: Sequence[fedbbpt.Update], seed: int) -> tuple[State, Metrics]:
        total = fedbbpt.merge(updates)
        losses = total.arrays["losses"] / total.weight
        population = candidates(self.broadcast(state, seed), seed, self._config.population)
        better_half = population[np.argsort(losses, kind="stable")[: len(population) // 2]]
        return State(better_half.mean(axis=0), state.sigma * self._config.decay), {"train_loss": float(losses.mean())}

    def prompt(self, state: State) -> npt.NDArray[np.float32]:
        return state.z.astype(np.float32)

    def expected(self, state: State) -> Mapping[str, tuple[int, ...]]:
        return {"losses": (self._config.population,)}

    def restore(self, arrays: Arrays) -> State:
        return fedbbpt.unpack(State, arrays)


class Client:
    """Scores the candidates on its own examples."""

    def __init__(self, settings: Settings, space: fedbbpt.PromptSpace, objectives: fedbbpt.Objectives) -> None:
        self._settings, self._objectives = settings, objectives

    def update(self, task: fedbbpt.Task, private: Arrays) -> tuple[fedbbpt.Update, Arrays]:
        losses = finite(
            self._objectives.loss(candidates(task.arrays, task.seed, self._settings.population), draw=task.seed)
        )
        weight = self._objectives.weight
        return fedbbpt.Update({"losses": weight * losses}, weight), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return np.asarray(arrays["z"], np.float32)


METHOD = fedbbpt.Method(
    name="fed-cem",
    version="1",
    config=Config,
    settings_type=Settings,
    settings=lambda config: Settings(config.population),
    server=Server,
    client=Client,
)


def main() -> None:
    """Simulates a small federation with this method."""
    tables = {
        "run": {"rounds": 5},
        "ptm": {"model": "fake"},
        "task": {"prompt": {"tokens": 4, "dim": 10}},
        "method": {"name": "fed-cem", "population": 16},
    }
    for report in fedbbpt.simulate(fedbbpt.make_job(tables, methods=[METHOD])):
        print(f"round {report.round}: dev loss {report.dev_loss:.3f}")


if __name__ == "__main__":
    main()
