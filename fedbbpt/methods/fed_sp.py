"""fed-sp (FedSP, arXiv 2311.06805): a prefix is the messenger between small auxiliary models and the owner's full one.

The model's owner makes an auxiliary model of it, which every client gets once (`fedbbpt.whitebox.auxiliary`); after
that only the prefix z travels. In each round a client trains its auxiliary model with the prefix as it is (stage
"model"), then the prefix with the model as it is (stage "prompt"), and the server averages: z = sum_k (n_k / n) z_k. If
the owner has a shard of the data, it goes on from there through its full, frozen model, and the next round begins.

Each client's auxiliary model drifts by itself and is never set right again: that is what a client keeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt import seeds
from fedbbpt.interfaces import PromptSpace, WhiteBox
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.losses import finite
from fedbbpt.types import Arrays, MethodSettings, Metrics, Stage, Task, Update, merge, unpack


class FedSpConfig(MethodConfig):
    """`[method]` of a job."""

    name: Literal["fed-sp"] = "fed-sp"
    start: int = Field(0, ge=0, description="The first layer of the full model that the auxiliary model has.")
    cell: int = Field(1, ge=1, description="How many layers it has from there on.")
    mode: Literal["share", "drop"] = Field(
        "share", description="share repeats these layers to the full depth, drop leaves the others out."
    )
    distill_steps: int = Field(5000, ge=0, description="Steps of the distillation before the first round.")
    distill_learning_rate: float = Field(5e-4, gt=0, allow_inf_nan=False, description="Of these steps.")
    server_shard: bool = Field(
        True, description="The model's owner tunes the prefix too, on data.server_share of the examples."
    )
    local_steps: int = Field(10, ge=1, description="Steps of each stage of a client, and of the owner, in a round.")
    batch_size: int = Field(16, ge=1, description="Examples of a step.")
    model_learning_rate: float = Field(5e-4, gt=0, allow_inf_nan=False, description="Of AdamW, stage model.")
    prompt_learning_rate: float = Field(
        5e-4, gt=0, allow_inf_nan=False, description="Of AdamW, stage prompt, and of the owner."
    )
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False, description="Of AdamW.")
    epsilon: float = Field(1e-4, gt=0, allow_inf_nan=False, description="Of AdamW.")
    warmup: float = Field(
        0.1, ge=0, le=1, description="The share of a stage's steps in which the learning rate rises; then it falls."
    )

    def distillation(self) -> Stage:
        return Stage(
            self.distill_steps,
            self.batch_size,
            self.distill_learning_rate,
            self.weight_decay,
            self.epsilon,
            self.warmup,
        )


@dataclass(frozen=True, slots=True)
class FedSpSettings(MethodSettings):
    local_steps: int
    batch_size: int
    model_learning_rate: float
    prompt_learning_rate: float
    weight_decay: float
    epsilon: float
    warmup: float

    def stage(self, learning_rate: float) -> Stage:
        return Stage(self.local_steps, self.batch_size, learning_rate, self.weight_decay, self.epsilon, self.warmup)


@dataclass(frozen=True, slots=True)
class FedSpState:
    z: npt.NDArray[np.float32]
    """The prefix `[n]`, counted from the one that the run began with."""


class FedSpServer:
    """Averages the clients' prefixes, and takes the owner's as it comes: an average of one."""

    linear = True

    def __init__(self, config: FedSpConfig, space: PromptSpace) -> None:
        self._dim = space.dim

    def init(self, seed: int) -> FedSpState:
        return FedSpState(np.zeros(self._dim, np.float32))

    def broadcast(self, state: FedSpState, seed: int) -> Arrays:
        return {"z": state.z}

    def step(self, state: FedSpState, updates: Sequence[Update], seed: int) -> tuple[FedSpState, Metrics]:
        """`train_loss` is the mean loss of the stages "prompt", on the way."""
        total = merge(updates)
        train_loss = float(total.arrays["loss"][0] / total.weight)
        return FedSpState((total.arrays["z"] / total.weight).astype(np.float32)), {"train_loss": train_loss}

    def prompt(self, state: FedSpState) -> npt.NDArray[np.float32]:
        return state.z

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        return {"z": (self._dim,), "loss": (1,)}

    def restore(self, arrays: Arrays) -> FedSpState:
        return unpack(FedSpState, arrays)


class FedSpClient:
    """Holds the auxiliary model."""

    def __init__(self, settings: FedSpSettings, space: PromptSpace, model: WhiteBox) -> None:
        self._settings, self._model = settings, model

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """`private` are the auxiliary model's weights."""
        settings, z = self._settings, task.arrays["z"].astype(np.float32)
        seed = seeds.derive(task.seed, task.id.client_id)
        aligning, tuning = settings.stage(settings.model_learning_rate), settings.stage(settings.prompt_learning_rate)
        weights = self._model.align(private, z, aligning, seeds.derive(seed, "model"))
        if not all(np.isfinite(array).all() for array in weights.values()):
            weights = private  # a stage that went wrong is as if it had not been
        tuned, loss = self._model.tune(weights, z, tuning, seeds.derive(seed, "prompt"))
        return answer(z, tuned, loss, self._model.weight), weights

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["z"].astype(np.float32)


class FedSpOwner:
    """Holds the full model, which stays as it is."""

    def __init__(self, settings: FedSpSettings, space: PromptSpace, model: WhiteBox) -> None:
        self._settings, self._model = settings, model

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        z = task.arrays["z"].astype(np.float32)
        stage = self._settings.stage(self._settings.prompt_learning_rate)
        tuned, loss = self._model.tune({}, z, stage, seeds.derive(task.seed, task.id.client_id))
        return answer(z, tuned, loss, self._model.weight), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["z"].astype(np.float32)


def answer(z: npt.NDArray[np.float32], tuned: npt.NDArray[np.float32], loss: float, weight: float) -> Update:
    """`tuned`, or `z` where the stage did not end in numbers."""
    sound = tuned if np.isfinite(tuned).all() else z
    return Update({"z": weight * sound.astype(np.float64), "loss": weight * finite(np.array([loss]))}, weight, {})


def settings(config: FedSpConfig) -> FedSpSettings:
    return FedSpSettings(**config.model_dump(include=set(FedSpSettings.__dataclass_fields__)))


METHOD = Method(
    "fed-sp",
    FedSpConfig,
    FedSpSettings,
    settings,
    FedSpServer,
    FedSpClient,
    spaces=lambda config: frozenset({"deep"}),
    white_box=True,
    owner=FedSpOwner,
    owner_takes_part=lambda config: config.server_shard,
)
