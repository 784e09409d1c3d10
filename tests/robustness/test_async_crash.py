"""The coordinator of an asynchronous run is killed before and after every write, and late updates count once."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Hello, Receipt, Snapshot
from tests.robustness.test_coordinator_crash import CLIENTS, RECORD, Federation, FragileStore, Killed

METHODS = ("fedavg-bbt", "fed-bbpt")
TURNS = [("anna", True), ("clara", False), ("berta", True), ("anna", True), ("berta", True), ("clara", True)]
"""The clients in their order, and whether each answers its task at once. Clara answers hers some rounds later."""


class AsyncFederation(Federation):
    """The clients go on with the turn in which the coordinator died, so all runs have the same order of arrivals."""

    cohort = CohortRules(clients=3, quorum=1, deadline_seconds=60.0, buffer=2, max_staleness=2)

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.turn = 0

    def run(self, coordinator: Coordinator) -> None:
        coordinator.tick(self.now)
        sessions = {
            client: coordinator.join(Hello(client, client, 4, frozenset(CODECS)), self.now)[0]
            for client in CLIENTS
            if not coordinator.state.ended
        }
        while not coordinator.state.ended:
            client, answers = TURNS[self.turn % len(TURNS)]
            task = None if client in self.unsent else coordinator.task_for(sessions[client])
            if task is not None:
                self.unsent[client] = (task.id, self.answer(task))
            if answers and client in self.unsent:
                task_id, update = self.unsent[client]
                self.receipts.append((task_id, coordinator.submit(sessions[client], task_id, update, self.now)))
                del self.unsent[client]
            self.turn += 1
            assert self.turn < 100


def outcome(store: SqliteStore | FragileStore) -> tuple[Any, ...]:
    """Everything that the order of arrivals determines."""
    snapshot = store.load()
    assert snapshot is not None
    reports = [replace(report, seconds=0.0) for report in snapshot.reports]
    best = [(result.z.tobytes(), replace(result.measured, seconds=0.0)) for result in snapshot.finalists]
    members = {name: member.counted for name, member in store.members().items()}
    return bits(snapshot), reports, best, snapshot.queries, members


def bits(snapshot: Snapshot) -> Mapping[str, bytes]:
    return {name: array.tobytes() for name, array in snapshot.state.items()}


@pytest.fixture(scope="module", params=METHODS)
def undisturbed(request: pytest.FixtureRequest) -> tuple[str, tuple[Any, ...], int]:
    store = FragileStore(MemoryStore(), Killed(), at=0, after=False)
    federation = AsyncFederation(request.param)
    federation.run(federation.coordinator(store))
    found = outcome(store)
    assert any(report.staleness for report in found[1]), "late updates count in the undisturbed run"
    assert any(receipt is Receipt.COUNTED for _, receipt in federation.receipts)
    return request.param, found, store.writes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_coordinator_killed_at_any_write_counts_late_updates_once(
    undisturbed: tuple[str, tuple[Any, ...], int], after: bool, tmp_path: Path
) -> None:
    method, expected, writes = undisturbed
    for at in range(1, writes + 1):
        federation, path = AsyncFederation(method), tmp_path / f"{at}.db"
        with closing(FragileStore(SqliteStore(path, RECORD), Killed(), at, after)) as store, pytest.raises(Killed):
            federation.run(federation.coordinator(store))
        with closing(SqliteStore(path, RECORD)) as reopened:
            federation.run(federation.coordinator(reopened))
            assert outcome(reopened) == expected


def test_coordinator_killed_again_and_again_counts_late_updates_once(
    undisturbed: tuple[str, tuple[Any, ...], int], tmp_path: Path
) -> None:
    """Each process joins its clients again, which writes only once, and lives for two further writes at most."""
    method, expected, writes = undisturbed
    federation = AsyncFederation(method)
    for life in range(writes + 4):
        after = bool(life % 2)
        with closing(FragileStore(SqliteStore(tmp_path / "run.db", RECORD), Killed(), 4, after)) as store:
            try:
                federation.run(federation.coordinator(store))
            except Killed:
                continue
            assert outcome(store) == expected
            return
    raise AssertionError("the run did not end")
