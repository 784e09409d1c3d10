"""A run: its settings, its members, the reports of its rounds, and its stored state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.types.arrays import Array, Arrays
from fedbbpt.types.examples import TaskSpec
from fedbbpt.types.privacy import NoiseShare, PrivacyAccount, PrivacySpent
from fedbbpt.types.rounds import Measurement
from fedbbpt.types.spaces import SpaceSettings


class MethodSettings:
    """The settings of a method that its clients need. Each method has a frozen dataclass of its own."""


SettingValue: TypeAlias = int | float | bool | str | Array
"""The types of settings that a plug-in method can send to its clients."""


@dataclass(frozen=True, slots=True)
class ExtensionSettings(MethodSettings):
    """The settings of a method that is not built in, in the form in which they travel."""

    name: str
    version: str
    values: Mapping[str, SettingValue]


@dataclass(frozen=True, slots=True)
class Member:
    """A client as the store knows it. It is in every cohort from round `since` until before round `until`."""

    client_id: str
    client_key: str
    """Empty if an operator removed the client: its name is free then."""
    examples: int
    since: int
    until: int | None = None
    counted: int | None = None
    """The last closed round that counted its update. Another answer to that round is a duplicate, not late."""


@dataclass(frozen=True, slots=True)
class Report:
    """The measurements of a closed round. They are those of the prompt with which the round began.

    In asynchronous runs they are those of the prompts that its updates began with. The report of a `Result` has all
    measurements of its prompt.
    """

    round: int
    clients: int
    dev_loss: float | None
    """Mean cross-entropy in nats, or the share of wrong answers if the PTM returns classes only.

    None if the round did not measure its prompt.
    """
    dev_accuracy: float | None
    """None if it was not measured, for example because the PTM returns losses only."""
    train_loss: float | None
    queries: int
    seconds: float
    bytes_up: int | None = None
    bytes_down: int | None = None
    dev_examples: int = 0
    """Number of examples on which dev_loss and dev_accuracy were measured."""
    staleness: float = 0.0
    """Mean number of rounds between an update's task and this round; above 0 in asynchronous runs only."""
    epsilon: float | None = None
    """What the run has spent of its privacy budget with this round; None if it adds no noise."""

    @property
    def rank(self) -> tuple[float, float]:
        """The order of prompts, higher is better: by dev loss, which is more stable on few examples than accuracy.

        A prompt that was not measured is the worst.
        """
        return -math.inf if self.dev_loss is None else -self.dev_loss, self.dev_accuracy or 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A prompt, z `[n]`, and the report of the round that measured it on dev data. That of a run is its best one."""

    z: npt.NDArray[np.float32]
    measured: Report


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier round of an asynchronous run, whose tasks can still be answered."""

    state: Arrays
    """The state of the method before it."""
    measured: Measurement = field(default_factory=Measurement)
    """The measurements of its prompt so far."""
    updates: int = 0
    """The number of these measurements."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The stored state of a run between two rounds."""

    round: int
    """The open round."""
    state: Arrays
    """The state of the method before the open round."""
    finalists: tuple[Result, ...] = ()
    """The best prompts so far, best first. There are several only if rounds measure on a sample of the dev examples."""
    queries: int = 0
    """(prompt, example) pairs over the whole run."""
    stopped_after: int | None = None
    """The last round, if an operator stopped the run."""
    reports: tuple[Report, ...] = field(default=())
    earlier: tuple[Earlier, ...] = ()
    """The last rounds before the open one, oldest first, in an asynchronous run."""
    privacy: PrivacyAccount | None = None
    """What the run has released; None if it adds no noise."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's introduction of itself when it joins."""

    client_id: str
    client_key: str
    """Random, made once and kept. It tells a returning client from another that uses the same id."""
    examples: int
    """Number of labelled training examples."""
    codecs: frozenset[str]
    """The links of codecs that the client can encode."""
    clips_examples: bool = False
    """Whether the client can clip what each of its examples adds, as `RunSettings.clip_norm` asks for."""
    adds_noise: bool = False
    """Whether the client can clip its answers and add noise to them, as `RunSettings.noise` asks for."""
    relay: bool = False
    """Whether it sends sums of the updates of a site's clients, some of which may be missing in a round."""


@dataclass(frozen=True, slots=True, order=True)
class PtmIdentity:
    """What a PTM says of itself: the parts that a prompt's card keeps."""

    model: str
    revision: str
    precision: str = ""
    """Empty if the PTM does not say it."""

    def __str__(self) -> str:
        """Returns model and revision, for a message."""
        return f"{self.model} ({self.revision})"


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """Announces the file of an auxiliary model."""

    size_bytes: int
    sha256: str
    """The SHA-256 of the file, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The examples that each generation is scored on, and the measurement of prompts on dev examples."""

    batch_examples: int = 0
    """m, the most examples of each client that a generation, or a dev measurement, uses; 0: all."""
    dev_every: int = 1
    """Prompts are measured in rounds 0, dev_every, 2 dev_every, ... and in the round that evaluates."""
    seed: int = 0
    """The seed by which clients divide their examples into batches."""

    def measures(self, round: int) -> bool:
        """Returns whether clients measure the prompt with which a search round begins."""
        return round % self.dev_every == 0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything about a run that its clients need. The coordinator sends it to a client that joins."""

    run_id: str
    task: TaskSpec
    labels: tuple[str, ...]
    """The names that data files use for the classes, in class order."""
    space: SpaceSettings
    """The meaning of z."""
    method: MethodSettings
    codec: str
    """The name of the codec that encodes updates."""
    rounds: int
    ptm_address: str
    """The PTM service's address, HOST:PORT; empty if each client knows its own."""
    ptm_revision: str
    """The revision with which all clients must score; empty if the run does not pin one."""
    max_update_bytes: int
    downlink: str = "float32"
    """The name of the codec that encodes broadcasts for clients that replay; float32 if they travel whole."""
    kept: float = 1.0
    """The share of the point's numbers that travel with codecs that send the largest ones only."""
    auxiliary: Auxiliary | None = None
    """The model that the clients of a white-box method train; None for other methods."""
    sampling: Sampling = Sampling()
    secure_threshold: float | None = None
    """The share of a client's neighbours that secure aggregation needs; None if updates travel in the clear."""
    clip_norm: float = 0.0
    """The largest norm of what each training example adds to an update; 0: clients do not clip."""
    noise: NoiseShare | None = None
    """The noise that clients add to their answers; None if they add none."""


class RunState(StrEnum):
    """The stage that a run has reached."""

    WAITING = "waiting"
    """Too few clients have joined."""
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """An operator stopped the run before its last round."""

    @property
    def ended(self) -> bool:
        """Whether no round follows."""
        return self in (RunState.FINISHED, RunState.STOPPED)


def state_of(snapshot: Snapshot | None, rounds: int) -> RunState:
    """Returns the state of a run with its latest snapshot. The first snapshot is stored when the run starts."""
    if snapshot is None:
        return RunState.WAITING
    last = rounds if snapshot.stopped_after is None else snapshot.stopped_after
    if snapshot.round <= last:
        return RunState.RUNNING
    return RunState.FINISHED if last == rounds else RunState.STOPPED


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A client as the operator of a run sees it."""

    client_id: str
    connected: bool
    """Whether its stream of tasks is open."""
    submitted: bool
    """Whether its update of the open round was counted."""
    examples: int
    trouble: str = ""
    """What keeps it from its task, as it reported."""
    trouble_since: float = 0.0
    """When it reported that, in seconds since 1970; 0 without trouble."""
    takes_part: bool = True
    """Whether it takes part in the open round or in a later one."""
    heard_at: float = 0.0
    """When it last joined, answered, reported trouble, or opened or closed its stream, in seconds since 1970; 0: not
    since the coordinator started."""
    late_since: float = 0.0
    """When it missed a deadline, in seconds since 1970; 0 if it has missed none, or has answered since."""


class EventKind(StrEnum):
    """What happened in a run, or to one of its clients. run.proto describes each."""

    JOIN = "join"
    EVICTION = "eviction"
    LEAVE = "leave"
    REMOVAL = "removal"
    DISCONNECTION = "disconnection"
    REFUSAL = "refusal"
    TROUBLE = "trouble"
    RECOVERY = "recovery"
    LATE = "late"
    START = "start"
    ROUND = "round"
    EXTENSION = "extension"
    PRIVACY = "privacy"
    STOP = "stop"
    END = "end"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run."""

    number: int
    """Counts the events of a run since its coordinator started, from 1."""
    time: float
    """Seconds since 1970."""
    kind: EventKind
    client_id: str = ""
    """The client that it is about; "" if it is about the run."""
    round: int = 0
    """The round that was open."""
    text: str = ""
    """Details, for people."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as its operator sees it. run.proto describes each field of `Run`."""

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
    """Bytes since the coordinator started; None if the operating system does not count them."""
    bytes_down: int | None
    name: str = ""
    """The run's name at its coordinator, if it has one."""
    privacy: PrivacySpent | None = None
    """What the run has spent of its privacy budget; None if it adds no noise."""
    clients: int = 0
    """The number of clients that the first round waits for."""
    quorum: int = 0
    """The number of answers with which the open round may close at its deadline."""
    round_since: float = 0.0
    """When the open round was opened, or opened again, in seconds since 1970; 0 if no round is open."""
    deadline_seconds: float = 0.0
    """How long after that its deadline is."""
    late: tuple[MemberStatus, ...] = ()
    """Clients that take no part in the open round because they missed a deadline, the first one first; at most 100."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """An operator's request for a new run; run.proto describes each field of `SubmitRunRequest`."""

    name: str
    job: str
    ptm_address: str = ""
    ptm_revision: str = ""
    tokens: tuple[str, ...] = ()
    """Lines of a tokens file: the tokens that admit clients to this run."""
    start: bytes = b""
