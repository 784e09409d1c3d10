"""fed-bbpt (Fed-BBPT, arXiv 2310.03123) with a soft-prompt generator: the weights theta of a small net are federated.

Each round every client runs `local_steps` steps of SPSA with gradient correction on theta against its own loss, one PTM
call a step, and sends theta^k; the server averages: theta = sum_k (n_k / n) theta^k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt import seeds
from fedbbpt.interfaces import Objectives
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.losses import finite
from fedbbpt.optim.spsa import SpsaGc
from fedbbpt.prompts.generator import Generator
from fedbbpt.types import Arrays, MethodSettings, Metrics, PromptSpace, Task, Update, merge, unpack


class FedBbptConfig(MethodConfig):
    """`[method]` of a job. Gains: a_i = a / (i + o)^alpha and c_i = c / i^gamma, with i counted over the whole run."""

    name: Literal["fed-bbpt"] = "fed-bbpt"
    local_steps: int = Field(5, ge=1, description="Steps of a client in a round.")
    estimates: int = Field(5, ge=1, description="Two-sided gradient estimates averaged in a step: two queries each.")
    a: float = Field(0.3, gt=0, allow_inf_nan=False, description="Gain of the step.")
    alpha: float = Field(0.4, ge=0, le=1, description="Decay of the step's gain.")
    o: float = Field(1.0, ge=0, allow_inf_nan=False, description="Offset of the step's gain.")
    c: float = Field(0.1, gt=0, allow_inf_nan=False, description="Width of the perturbation.")
    gamma: float = Field(0.1, ge=0, le=1, description="Decay of the perturbation's width.")
    beta: float = Field(0.9, ge=0, lt=1, description="Momentum of the gradient correction.")
    code: int = Field(8, ge=1, description="Length of the generator's latent code.")
    hidden: int = Field(16, ge=1, description="Width of the generator's hidden layer.")
    generator_seed: int = Field(0, ge=0, lt=2**64, description="Fixes the latent code and the first weights.")


@dataclass(frozen=True, slots=True)
class FedBbptSettings(MethodSettings):
    local_steps: int
    estimates: int
    a: float
    alpha: float
    o: float
    c: float
    gamma: float
    beta: float
    code: int
    hidden: int
    generator_seed: int


@dataclass(frozen=True, slots=True)
class FedBbptState:
    theta: npt.NDArray[np.float64]
    """The generator's weights, flat."""


class FedBbptServer:
    linear = True

    def __init__(self, config: FedBbptConfig, space: PromptSpace) -> None:
        self._generator = Generator(space.dim, config.code, config.hidden, config.generator_seed)

    def init(self, seed: int) -> FedBbptState:
        return FedBbptState(self._generator.init())

    def broadcast(self, state: FedBbptState, seed: int) -> Arrays:
        return {"theta": state.theta.astype(np.float32)}

    def step(self, state: FedBbptState, updates: Sequence[Update], seed: int) -> tuple[FedBbptState, Metrics]:
        """`train_loss` is the mean loss of all that the clients probed."""
        total = merge(updates)
        train_loss = float(total.arrays["loss"][0] / total.weight)
        return FedBbptState(total.arrays["theta"] / total.weight), {"train_loss": train_loss}

    def prompt(self, state: FedBbptState) -> npt.NDArray[np.float32]:
        return prompt(self._generator, self.broadcast(state, seed=0))

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        return {"theta": (self._generator.size,), "loss": (1,)}

    def restore(self, arrays: Arrays) -> FedBbptState:
        return unpack(FedBbptState, arrays)


class FedBbptClient:
    def __init__(self, settings: FedBbptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives
        self._generator = Generator(space.dim, settings.code, settings.hidden, settings.generator_seed)
        self._search = SpsaGc(
            settings.estimates, settings.a, settings.alpha, settings.o, settings.c, settings.gamma, settings.beta
        )

    def update(self, task: Task) -> Update:
        steps = self._settings.local_steps
        # Gains go on from round to round. Momentum begins anew: the point that it led to was averaged away, and a
        # client that was absent would bring an old one.
        search = replace(self._search.init(task.arrays["theta"]), step=task.id.round * steps + 1)
        probed = []
        for j in range(steps):
            thetas = self._search.ask(search, seeds.derive(task.seed, task.id.client_id, j))
            losses = self._objectives.loss(self._generator(thetas))
            search = self._search.tell(search, thetas, losses)
            probed.append(finite(losses).mean())
        weight = self._objectives.weight
        arrays = {"theta": weight * search.point, "loss": np.array([weight * np.mean(probed)])}
        return Update(arrays, weight, metrics={})

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return prompt(self._generator, arrays)


def prompt(generator: Generator, arrays: Arrays) -> npt.NDArray[np.float32]:
    """The z `[n]` of a broadcast."""
    z: npt.NDArray[np.float32] = generator(arrays["theta"][None].astype(np.float64))[0].astype(np.float32)
    return z


def settings(config: FedBbptConfig) -> FedBbptSettings:
    return FedBbptSettings(**config.model_dump(exclude={"name"}))


METHOD = Method("fed-bbpt", FedBbptConfig, FedBbptSettings, settings, FedBbptServer, FedBbptClient)
