"""fed-sp (FedSP, arXiv 2311.06805): a prefix carries knowledge between small auxiliary models and the owner's full one.

The model owner derives an auxiliary model from the full one, and every client downloads it once
(`fedbbpt.whitebox.auxiliary`). After that only the prefix z travels. In each round, a client k trains its auxiliary
model with the prefix fixed (stage "model"), then the prefix with the model fixed (stage "prompt"). The server averages
the prefixes:

    z = sum_k (n_k / n) z^k

If the owner has examples of its own, it trains the averaged prefix through its full, frozen model before the next round
begins.

A client keeps its auxiliary model's weights from round to round. They drift apart between clients and are never
synchronised again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbbpt import seeds
from fedbbpt.interfaces import PromptSpace, WhiteBox
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.methods.update_rules import LOSS, UpdateRules, Weight
from fedbbpt.optim.losses import finite
from fedbbpt.toml.section import contradiction
from fedbbpt.types import Arrays, MethodSettings, Metrics, Stage, Task, Update, merge, unpack


class FedSpConfig(MethodConfig):
    """The table `[method]` of a job."""

    name: Literal["fed-sp"] = "fed-sp"
    start: int = Field(0, ge=0, description="First layer of the full model that the auxiliary model takes.")
    cell: int = Field(1, ge=1, description="Number of layers that it takes from there on.")
    mode: Literal["share", "drop"] = Field(
        "share", description="share repeats these layers to the full depth; drop leaves the others out."
    )
    bottom: int = Field(
        0, ge=0, description="With drop: number of first layers that the auxiliary model takes as well, below the cell."
    )
    stitch: bool = Field(
        False, description="With drop: whether an affine map, fitted on the owner's texts, makes the cell's inputs."
    )
    distill_steps: int = Field(5000, ge=0, description="Steps of the distillation before the first round.")
    distill_learning_rate: float = Field(
        5e-4, gt=0, allow_inf_nan=False, description="Learning rate of the distillation."
    )
    server_shard: bool = Field(
        True, description="Whether the model owner trains the prefix too, on data.server_share of the examples."
    )
    local_steps: int = Field(
        10, ge=1, description="Steps of each stage of a client and of the owner's turn, in each round."
    )
    batch_size: int = Field(16, ge=1, description="Examples in a step.")
    model_learning_rate: float = Field(
        5e-4, ge=0, allow_inf_nan=False, description="Learning rate of the stage model; with 0 the stage is left out."
    )
    prompt_learning_rate: float = Field(
        5e-4, gt=0, allow_inf_nan=False, description="Learning rate of the stage prompt, and of the owner's turn."
    )
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False, description="Weight decay of AdamW.")
    epsilon: float = Field(1e-4, gt=0, allow_inf_nan=False, description="Epsilon of AdamW.")
    warmup: float = Field(
        0.1, ge=0, le=1, description="Share of a stage's steps in which the learning rate rises; then it falls."
    )

    @model_validator(mode="after")
    def _trains_on_batches_of_its_own(self) -> "FedSpConfig":
        if self.batch_examples:
            what = "batches are of examples that candidates are scored on, and fed-sp trains instead"
            raise contradiction("batch_examples", what, "0; method.batch_size is the number of examples in a step")
        return self

    def distillation(self) -> Stage:
        """Returns the stage in which the auxiliary model learns from the full one."""
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
    """The part of the config that clients need. Fields have the meanings of the config's keys."""

    local_steps: int
    batch_size: int
    model_learning_rate: float
    prompt_learning_rate: float
    weight_decay: float
    epsilon: float
    warmup: float

    def stage(self, learning_rate: float) -> Stage:
        """Returns a stage of a round with the given peak learning rate."""
        return Stage(self.local_steps, self.batch_size, learning_rate, self.weight_decay, self.epsilon, self.warmup)


@dataclass(frozen=True, slots=True)
class FedSpState:
    """The server's state between two rounds."""

    z: npt.NDArray[np.float32]
    """The prefix `[n]`, relative to the initial one."""


class FedSpServer:
    """Averages the clients' prefixes. The owner's prefix replaces the average, since it is averaged alone."""

    linear = True

    def __init__(self, config: FedSpConfig, space: PromptSpace) -> None:
        self._dim = space.dim

    def init(self, seed: int) -> FedSpState:
        return FedSpState(np.zeros(self._dim, np.float32))

    def started(self, state: FedSpState, z: npt.NDArray[np.float32]) -> FedSpState:
        return FedSpState(z)

    def broadcast(self, state: FedSpState, seed: int) -> Arrays:
        return {"z": state.z}

    def step(self, state: FedSpState, updates: Sequence[Update], seed: int) -> tuple[FedSpState, Metrics]:
        """Averages the prefixes. `train_loss` is the mean loss during the stages "prompt"."""
        total = merge(updates)
        train_loss = float(total.arrays["loss"][0] / total.weight)
        return FedSpState((total.arrays["z"] / total.weight).astype(np.float32)), {"train_loss": train_loss}

    def prompt(self, state: FedSpState) -> npt.NDArray[np.float32]:
        return state.z

    def expected(self, state: FedSpState) -> Mapping[str, tuple[int, ...]]:
        return {"z": (self._dim,), "loss": (1,)}

    def restore(self, arrays: Arrays) -> FedSpState:
        return unpack(FedSpState, arrays)


class FedSpClient:
    """Trains the auxiliary model, then the prefix."""

    def __init__(self, settings: FedSpSettings, space: PromptSpace, model: WhiteBox) -> None:
        self._settings, self._model = settings, model

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """Makes both stages. `private` holds the auxiliary model's weights."""
        settings, z = self._settings, task.arrays["z"].astype(np.float32)
        seed = seeds.derive(task.seed, task.id.client_id)
        aligning, tuning = settings.stage(settings.model_learning_rate), settings.stage(settings.prompt_learning_rate)
        weights = private
        if aligning.learning_rate:
            weights = self._model.align(private, z, aligning, seeds.derive(seed, "model"))
            if not all(np.isfinite(array).all() for array in weights.values()):
                weights = private  # a stage that diverged is undone
        tuned, loss = self._model.tune(weights, z, tuning, seeds.derive(seed, "prompt"))
        return _answer(z, tuned, loss, self._model.weight), weights

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["z"].astype(np.float32)


class FedSpOwner:
    """Trains the prefix through the full model, which stays fixed."""

    def __init__(self, settings: FedSpSettings, space: PromptSpace, model: WhiteBox) -> None:
        self._settings, self._model = settings, model

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        z = task.arrays["z"].astype(np.float32)
        stage = self._settings.stage(self._settings.prompt_learning_rate)
        tuned, loss = self._model.tune({}, z, stage, seeds.derive(task.seed, task.id.client_id))
        return _answer(z, tuned, loss, self._model.weight), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["z"].astype(np.float32)


def _answer(z: npt.NDArray[np.float32], tuned: npt.NDArray[np.float32], loss: float, weight: float) -> Update:
    """Returns the update with `tuned`, or with the unchanged `z` if training diverged."""
    sound = tuned if np.isfinite(tuned).all() else z
    return Update({"z": weight * sound.astype(np.float64), "loss": weight * finite(np.array([loss]))}, weight)


def settings(config: FedSpConfig) -> FedSpSettings:
    """Returns the settings that clients receive for a config."""
    return FedSpSettings(**config.model_dump(include=set(FedSpSettings.__dataclass_fields__)))


METHOD = Method(
    name="fed-sp",
    config=FedSpConfig,
    settings_type=FedSpSettings,
    settings=settings,
    stale=lambda config: "the owner tunes between two rounds, and clients train the weights that they have then",
    server=FedSpServer,
    white_box_client=FedSpClient,
    rules=lambda settings: UpdateRules(Weight.EXAMPLES, {"loss": LOSS}),
    spaces=lambda config: frozenset({"deep"}),
    owner=FedSpOwner,
    owner_takes_part=lambda config: config.server_shard,
    point=lambda settings: "z",
    undefended=lambda config, rule: (
        "its owner tunes the prompt alone between the rounds, and nobody can be compared with it"
        if config.server_shard
        else ""
    ),
    downlink="float16",
)
