"""The coordinator is killed before and after every write to its store, and is started again on the same file."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.errors import StoreFull
from fedbbpt.interfaces import Store
from fedbbpt.methods import METHODS, server_half
from fedbbpt.methods.method import ReadoutConfig
from fedbbpt.prompts import Space
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import (
    FINALISTS,
    Hello,
    Measurement,
    Member,
    Orders,
    Phase,
    Projection,
    ProjectionKind,
    Receipt,
    RunSettings,
    Sampling,
    Snapshot,
    Task,
    TaskId,
    TaskSpec,
    Update,
    pack,
)
from tests.slow import slow_except

CLIENTS = ["anna", "berta", "clara"]
ROUNDS = 3
SEED = 11
SPACE = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""))
RECORD = RunRecord("run-1", SEED, "digest", "2026-01-01T00:00:00+00:00")
QUERIES = 7
WITH_A_READOUT = " with a readout"
CODEC = CODECS["int8"]
ON_SAMPLES = " on samples"
"""Stands after the method of a run that measures its rounds on samples of the dev examples."""
SPECIAL = ("fed-cma" + ON_SAMPLES, "fed-cma" + WITH_A_READOUT)


class Killed(BaseException):
    """A kill -9: a BaseException, so that no `except Exception` catches it."""


@dataclass
class FragileStore:
    """A store whose write number `at` fails, before or after it is done."""

    inner: Store
    failure: BaseException
    at: int
    after: bool
    writes: int = field(default=0)

    def _write(self, operation: Callable[[], None]) -> None:
        self.writes += 1
        if self.writes == self.at and not self.after:
            raise self.failure
        operation()
        if self.writes == self.at and self.after:
            raise self.failure

    def load(self) -> Snapshot | None:
        return self.inner.load()

    def members(self) -> Mapping[str, Member]:
        return self.inner.members()

    def put_members(self, members: Sequence[Member]) -> None:
        self._write(lambda: self.inner.put_members(members))

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        self._write(lambda: self.inner.put_updates(updates))

    def updates(self, round: int) -> Mapping[str, Update]:
        return self.inner.updates(round)

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        self._write(lambda: self.inner.commit(snapshot, members))

    def backup(self, path: Path) -> None:
        self.inner.backup(path)

    def close(self) -> None:
        self.inner.close()


class Federation:
    """Clients that answer any coordinator, and send an update again until they have a receipt for it."""

    cohort = CohortRules(clients=3, quorum=2, deadline_seconds=60.0)

    def __init__(self, run: str) -> None:
        method = run.removesuffix(ON_SAMPLES)
        self.sampling = Sampling(batch_examples=10 if run.endswith(ON_SAMPLES) else 0)
        name = method.removesuffix(WITH_A_READOUT)
        self.method = METHODS[name]
        # One round of each kind: a readout of the views, one of the prompt, too, and the search.
        turns = ReadoutConfig.model_construct(ridges=(0.1, 1.0), rounds=1, every=1)
        self.config = self.method.config(name=name).model_copy(update={"readout": turns})
        self.space: Space = SPACE
        if name == "fed-readout" or name != method:
            self.space = ReadoutSpace(SPACE if name != method else NoPrompt(), ("",), 0, 2, 3)
        self.server = server_half(self.method, self.config, self.space)
        self.store: Store = MemoryStore()
        self.unsent: dict[str, tuple[TaskId, Update]] = {}
        self.receipts: list[tuple[TaskId, Receipt]] = []
        self.now = 0.0

    def coordinator(self, store: Store) -> Coordinator:
        self.store = store
        task = TaskSpec("{prompt} {text}", ("bad", "good"))
        settings = RunSettings(
            "run-1", task, ("0", "1"), self.space, self.method.settings(self.config), CODEC.name, ROUNDS, "", "", 2**20
        )
        settings = replace(settings, sampling=self.sampling)
        return Coordinator(
            method_name=self.method.name,
            method=self.server,
            codec=CODEC,
            settings=settings,
            seed=SEED,
            cohort=self.cohort,
            store=store,
        )

    def answer(self, task: Task) -> Update:
        """Adds noise to the broadcast: a pure function of the task, which is one of the round that is stored."""
        draw = seeds.rng(task.seed, task.id.client_id)
        told = sum(float(array.sum()) for array in task.arrays.values())
        correct = int(draw.integers(10))
        measured = Measurement(abs(told) + draw.random(), dev_examples=10, dev_correct=correct, queries=QUERIES)
        if task.id.phase is Phase.EVALUATE:
            losses = draw.random(len(task.arrays.get(FINALISTS, ())))
            return Update({}, 4.0, measured, finalists=tuple(Measurement(loss, 10, correct) for loss in losses))
        snapshot = self.store.load()
        assert snapshot is not None
        expected = self.server.expected(self.server.restore(snapshot.state))
        shapes = {name: form for name, form in expected.items() if not isinstance(form, Orders)}
        arrays = {name: np.abs(told + draw.normal(size=shape)) for name, shape in shapes.items()}
        return Update(CODEC.encode(arrays, draw), 4.0, measured)

    def run(self, coordinator: Coordinator) -> None:
        coordinator.tick(self.now)
        sessions: dict[str, str] = {}
        while not coordinator.state.ended:
            self.now += 1.0
            if (coordinator.next_deadline() or self.now) < self.now:
                coordinator.tick(self.now)
            for client in CLIENTS:
                if coordinator.state.ended:
                    return
                if client not in sessions:
                    sessions[client], _ = coordinator.join(Hello(client, client, 4, frozenset(CODECS)), self.now)
                if client not in self.unsent:
                    task = coordinator.task_for(sessions[client])
                    if task is None:
                        continue
                    self.unsent[client] = (task.id, self.answer(task))
                task_id, update = self.unsent[client]
                self.receipts.append((task_id, coordinator.submit(sessions[client], task_id, update, self.now)))
                del self.unsent[client]


def undisturbed(method: str) -> tuple[Snapshot, int]:
    store = FragileStore(MemoryStore(), Killed(), at=0, after=False)
    federation = Federation(method)
    federation.run(federation.coordinator(store))
    snapshot = store.load()
    assert snapshot is not None
    return snapshot, store.writes


def assert_same_run(federation: Federation, snapshot: Snapshot | None, expected: Snapshot) -> None:
    assert snapshot is not None
    assert {name: a.tobytes() for name, a in snapshot.state.items()} == {
        name: a.tobytes() for name, a in expected.state.items()
    }
    timeless: dict[str, Any] = {"seconds": 0.0}
    found, right = (
        [(result.z.tobytes(), replace(result.measured, **timeless)) for result in each.finalists]
        for each in (snapshot, expected)
    )
    assert found == right
    assert [replace(r, **timeless) for r in snapshot.reports] == [replace(r, **timeless) for r in expected.reports]
    assert snapshot.queries == QUERIES * len(CLIENTS) * (ROUNDS + 1)
    # Every client has a receipt for every task, except perhaps one that was lost after the last round closed.
    assert all(receipt in (Receipt.COUNTED, Receipt.DUPLICATE) for _, receipt in federation.receipts)
    told = {task_id for task_id, _ in federation.receipts} | {task_id for task_id, _ in federation.unsent.values()}
    assert len(told) == len(CLIENTS) * (ROUNDS + 1)
    assert all(task_id.phase is Phase.EVALUATE for task_id, _ in federation.unsent.values())


def test_the_undisturbed_run_changes_the_state(undisturbed_run: tuple[str, Snapshot, int]) -> None:
    """If the run did not change the state, comparing the states would prove nothing."""
    method, snapshot, writes = undisturbed_run
    initial = Federation(method).server.init(0)
    # The update that completes a round is not written: the close of the round writes what follows from it.
    assert writes == len(CLIENTS) + 1 + len(CLIENTS) * (ROUNDS + 1)
    assert [report.clients for report in snapshot.reports] == [3] * (ROUNDS + 1)
    assert len({report.dev_loss for report in snapshot.reports}) == ROUNDS + 1
    assert len(snapshot.finalists) == (ROUNDS + 1 if method.endswith(ON_SAMPLES) else 1)
    names = {
        "fed-bbpt": "theta",
        "fed-sp": "z",
        "fed-readout": "fit.search.point",
        "fed-cma": "search.mean",
        "fed-cma with a readout": "search.search.mean",
    }
    name = names.get(method.removesuffix(ON_SAMPLES), "mean")
    assert not np.array_equal(snapshot.state[name], pack(initial)[name])


@pytest.fixture(
    scope="module",
    params=slow_except(
        [*sorted(METHODS), *SPECIAL],
        "fed-cma",
        "fed-bbpt",
        *SPECIAL,
    ),
)
def undisturbed_run(request: pytest.FixtureRequest) -> tuple[str, Snapshot, int]:
    return (request.param, *undisturbed(request.param))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_coordinator_killed_at_any_write_ends_with_the_same_run(
    undisturbed_run: tuple[str, Snapshot, int], after: bool, tmp_path: Path
) -> None:
    method, expected, writes = undisturbed_run
    for at in range(1, writes + 1):
        federation = Federation(method)
        path = tmp_path / f"{at}.db"
        with closing(FragileStore(SqliteStore(path, RECORD), Killed(), at, after)) as store, pytest.raises(Killed):
            federation.run(federation.coordinator(store))
        with closing(SqliteStore(path, RECORD)) as reopened:
            federation.run(federation.coordinator(reopened))
            assert_same_run(federation, reopened.load(), expected)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_coordinator_killed_again_and_again_ends_with_the_same_run(
    undisturbed_run: tuple[str, Snapshot, int], after: bool, tmp_path: Path
) -> None:
    """Each process lives for four writes: enough to join, to answer once, and to die."""
    method, expected, writes = undisturbed_run
    federation = Federation(method)
    for _ in range(writes):
        with closing(FragileStore(SqliteStore(tmp_path / "run.db", RECORD), Killed(), 4, after)) as store:
            try:
                federation.run(federation.coordinator(store))
            except Killed:
                continue
            assert_same_run(federation, store.load(), expected)
            return
    raise AssertionError("the run did not end")


def test_a_full_disk_at_any_write_delays_the_run_only(undisturbed_run: tuple[str, Snapshot, int]) -> None:
    """The same coordinator continues: failed calls are made again, and updates with a receipt stay counted."""
    method, expected, writes = undisturbed_run
    for at in range(1, writes + 1):
        federation = Federation(method)
        store = FragileStore(MemoryStore(), StoreFull("the disk is full"), at, after=False)
        coordinator = federation.coordinator(store)
        while not coordinator.state.ended:
            try:
                federation.run(coordinator)
            except StoreFull:
                continue
        assert_same_run(federation, store.load(), expected)
