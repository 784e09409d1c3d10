"""A coordinator, called as functions: time is a number, and the store is in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import unit
from fedbbpt.errors import StoreFull
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.private_rounds import PrivateRounds
from fedbbpt.types import (
    Arrays,
    Hello,
    Measurement,
    Member,
    MethodSettings,
    Metrics,
    Phase,
    Projection,
    ProjectionKind,
    Receipt,
    Report,
    RunSettings,
    Sampling,
    Snapshot,
    Task,
    TaskId,
    TaskSpec,
    Update,
    merge,
    unpack,
)

SPACE = LatentSpace(2, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""))
SETTINGS = RunSettings(
    "run-1", TaskSpec("{text}", ("a", "b")), ("0", "1"), SPACE, MethodSettings(), "float32", 3, "", "", 1000
)
DEADLINE = 60.0


def float32(values: Sequence[float]) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Mean:
    z: npt.NDArray[np.float64]


class MeanServer:
    """A method whose state becomes the weighted mean of the clients' arrays."""

    linear = True

    def init(self, seed: int) -> Mean:
        return Mean(np.zeros(2))

    def broadcast(self, state: Mean, seed: int) -> Arrays:
        return {"z": self.prompt(state)}

    def step(self, state: Mean, updates: Sequence[Update], seed: int) -> tuple[Mean, Metrics]:
        total = merge(updates)
        return Mean(total.arrays["found"] / total.weight), {"train_loss": 0.5}

    def prompt(self, state: Mean) -> npt.NDArray[np.float32]:
        return state.z.astype(np.float32)

    def expected(self, state: Mean) -> Mapping[str, tuple[int, ...]]:
        return {"found": (2,)}

    def restore(self, arrays: Arrays) -> Mean:
        return unpack(Mean, arrays)


class FullStore(MemoryStore):
    """A store whose disk may be full."""

    full = False

    def put_members(self, members: Sequence[Member]) -> None:
        if self.full:
            raise StoreFull("the disk is full")
        super().put_members(members)

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        if self.full:
            raise StoreFull("the disk is full")
        super().commit(snapshot, members)


@dataclass
class Bench:
    """A coordinator and the sessions of its clients."""

    clients: int = 2
    quorum: int = 2
    size: int | None = None
    method: MeanServer = field(default_factory=MeanServer)
    store: FullStore = field(default_factory=FullStore)
    sampling: Sampling = field(default_factory=Sampling)
    rounds: int = 3
    privacy: PrivateRounds | None = None
    now: float = 0.0
    secure_threshold: float | None = None
    bytes: tuple[int, int] = (0, 0)
    sessions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.coordinator = Coordinator(
            method_name="mean",
            method=self.method,
            codec=CODECS["float32"],
            settings=replace(
                SETTINGS, rounds=self.rounds, sampling=self.sampling, secure_threshold=self.secure_threshold
            ),
            seed=5,
            cohort=CohortRules(self.clients, self.quorum, DEADLINE, self.size),
            store=self.store,
            traffic=lambda: self.bytes,
            privacy=self.privacy,
        )
        self.coordinator.tick(self.now)

    def join(self, *clients: str, key: str = "key") -> None:
        for client in clients:
            hello = Hello(client, key, 4, frozenset({"float32"}))
            self.sessions[client], _ = self.coordinator.join(hello, self.now)

    def task(self, client: str) -> Task | None:
        return self.coordinator.task_for(self.sessions[client])

    def submit(self, client: str, task: Task | TaskId, **changes: Any) -> Receipt:
        task_id = task.id if isinstance(task, Task) else task
        return self.coordinator.submit(self.sessions[client], task_id, update(task_id.phase, **changes), self.now)

    def answer(self, *clients: str, **changes: Any) -> None:
        for client in clients:
            task = self.task(client)
            assert task is not None
            assert self.submit(client, task, **changes) is Receipt.COUNTED

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.tick(self.now)

    @property
    def round(self) -> int:
        return self.coordinator.status().round

    @property
    def last(self) -> Report:
        last = self.coordinator.status().last
        assert last is not None
        return last


def update(
    phase: Phase = Phase.UPDATE,
    *,
    z: float = 1.0,
    weight: float = 2.0,
    finalists: Sequence[Measurement] = (),
    **measured: Any,
) -> Update:
    """Returns an update of MeanServer, with a measurement of four dev examples unless `measured` says otherwise."""
    measurement = replace(Measurement(dev_loss_sum=4.0, dev_examples=4, dev_correct=2, queries=10), **measured)
    arrays = {"found": np.full(2, weight / unit(weight) * z, np.float32)} if phase is Phase.UPDATE else {}
    return Update(arrays, weight, measurement, finalists=tuple(finalists))
