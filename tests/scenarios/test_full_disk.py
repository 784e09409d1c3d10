"""Clients retry while the coordinator's disk is full, and the run continues once there is space."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import StoreFull
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Store
from fedbbpt.server.coordinator import STORE_RETRY_SECONDS
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Member, Receipt, Snapshot, TaskId, Update
from tests.federation import AdvancingLoop, OverGrpc, play
from tests.tiny_run import CLIENTS, ROUNDS, Course, undisturbed


class SmallDisk(SqliteStore):
    """A store on a disk that a test can fill."""

    full = False
    full_for_snapshots = False

    def put_members(self, members: Sequence[Member]) -> None:
        self._require_space()
        super().put_members(members)

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        self._require_space()
        super().put_updates(updates)

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        self._require_space(self.full_for_snapshots)
        super().commit(snapshot, members)

    def _require_space(self, too_large: bool = False) -> None:
        if self.full or too_large:
            raise StoreFull("the disk is full", fix="free some space; the run then continues")


class OnSmallDisk(OverGrpc):
    def _open_store(self) -> Store:
        self.disk = SmallDisk(self._path, self.record())
        return self.disk

    def free_space(self, seconds: float = 0.0) -> None:
        self.disk.full = False

    def patient(self) -> RemoteCoordinator:
        """Returns a link during whose first pause the disk gets space."""
        return RemoteCoordinator(self.channel(), pause=self.free_space)


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OnSmallDisk]:
    made = OnSmallDisk(splits, tmp_path / "run.db", server_loop)
    yield made
    made.close()


@pytest.fixture
def expected(splits: Splits) -> Course:
    return undisturbed(splits)


def test_joining_and_submitting_are_retried(federation: OnSmallDisk, expected: Course) -> None:
    federation.disk.full = True
    anna = federation.client(0, link=federation.patient())
    others = [federation.client(index) for index in range(1, CLIENTS)]
    for _ in range(ROUNDS + 1):
        task = anna.task()
        federation.disk.full = True
        assert anna.submit(task) is Receipt.COUNTED
        assert not federation.disk.full
        play(others, 1)
    assert federation.course() == expected


def test_client_without_patience_gets_the_reason(federation: OnSmallDisk, expected: Course) -> None:
    anna, *others = federation.clients()
    task = anna.task()
    hasty = federation.client(0, link=RemoteCoordinator(federation.channel(), patience_seconds=0.0))
    federation.disk.full = True
    with pytest.raises(StoreFull, match="free some space"):
        hasty.submit(task)
    federation.free_space()
    play([hasty, *others], ROUNDS + 1)
    assert federation.course() == expected


def test_round_closes_once_there_is_space(federation: OnSmallDisk, expected: Course) -> None:
    """The last client gets its receipt at once, because its update was stored."""
    clients = federation.clients()
    play(clients[:-1], 1)
    task = clients[-1].task()
    federation.disk.full_for_snapshots = True
    assert clients[-1].submit(task) is Receipt.COUNTED
    assert federation.until(lambda status: all(member.submitted for member in status.members)).round == 0
    federation.disk.full_for_snapshots = False
    federation.advance(STORE_RETRY_SECONDS)
    play(clients, ROUNDS)
    assert federation.course() == expected
