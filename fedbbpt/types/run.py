"""A run: its members, what its rounds measured, and what is stored of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.types.arrays import Array, Arrays
from fedbbpt.types.examples import TaskSpec
from fedbbpt.types.spaces import SpaceSettings


class MethodSettings:
    """What clients are told about a run's method. Each method has a frozen dataclass of its own."""


SettingValue: TypeAlias = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class ExtensionSettings(MethodSettings):
    """The settings of a method that is not built in, in the form in which they travel."""

    name: str
    version: str
    values: Mapping[str, SettingValue]


@dataclass(frozen=True, slots=True)
class Member:
    """A client as the store knows it: part of every cohort from round `since` to before round `until`."""

    client_id: str
    client_key: str
    examples: int
    since: int
    until: int | None = None
    counted: int | None = None
    """The last closed round that counted its update: an answer to that one is a duplicate, not late."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a closed round measured; its prompt is the one that the round began with."""

    round: int
    clients: int
    dev_loss: float
    """Mean cross-entropy, or the share of wrong answers where the PTM gives classes only."""
    dev_accuracy: float | None
    """None where it was not measured, as where the PTM gives losses only."""
    train_loss: float | None
    queries: int
    seconds: float
    bytes_up: int | None = None
    bytes_down: int | None = None
    dev_examples: int = 0
    """On which dev_loss and dev_accuracy were measured."""

    @property
    def rank(self) -> tuple[float, float]:
        """The best prompt has the highest: the lowest dev loss, which is steadier on few examples than accuracy."""
        return -self.dev_loss, self.dev_accuracy or 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The durable truth between two rounds: `round` stands open, `state` is the method's before it."""

    round: int
    state: Arrays
    best: Report | None = None
    best_z: npt.NDArray[np.float32] | None = None
    queries: int = 0
    stopped_after: int | None = None
    """The last round of a run that an operator stopped."""
    reports: tuple[Report, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Hello:
    """How a client enters a run."""

    client_id: str
    client_key: str
    """Random, made once and kept; tells a client that comes back from another that took its name."""
    examples: int
    codecs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """Announces an auxiliary model: the length and the SHA-256 of its file, in hexadecimal."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a client is told when it joins: everything about the run."""

    run_id: str
    task: TaskSpec
    labels: tuple[str, ...]
    """The names that data files use for the classes, in class order."""
    space: SpaceSettings
    """What z stands for."""
    method: MethodSettings
    codec: str
    """The name of the codec that encodes updates."""
    rounds: int
    ptm_address: str
    """The PTM service's address, HOST:PORT; empty if each client knows its own."""
    ptm_revision: str
    """The revision with which all clients must score; empty if the run does not pin one."""
    max_update_bytes: int
    auxiliary: Auxiliary | None = None
    """The model that the clients of a white-box method train; None for other methods."""


class RunState(StrEnum):
    WAITING = "waiting"
    """Too few clients have joined."""
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """By an operator, before its last round."""

    @property
    def ended(self) -> bool:
        return self in (RunState.FINISHED, RunState.STOPPED)


def state_of(snapshot: Snapshot | None, rounds: int) -> RunState:
    """Of a run whose last round is `rounds`; its first snapshot is committed when it starts."""
    if snapshot is None:
        return RunState.WAITING
    last = rounds if snapshot.stopped_after is None else snapshot.stopped_after
    if snapshot.round <= last:
        return RunState.RUNNING
    return RunState.FINISHED if last == rounds else RunState.STOPPED


@dataclass(frozen=True, slots=True)
class MemberStatus:
    client_id: str
    connected: bool
    submitted: bool
    """Counted in the round that stands open."""
    examples: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    run_id: str
    method: str
    state: RunState
    round: int
    rounds: int
    members: tuple[MemberStatus, ...]
    last: Report | None
    best: Report | None
    queries: int
    bytes_up: int | None
    """Since the coordinator started; None where nobody counts."""
    bytes_down: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """The best prompt by dev data: z `[n]`, and the round that measured it."""

    z: npt.NDArray[np.float32]
    measured: Report
