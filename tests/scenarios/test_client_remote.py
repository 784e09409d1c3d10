"""The retries of a client's link to the coordinator, and a run that ended while the client was disconnected."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import CoordinatorUnavailable, InvalidHello
from fedbbpt.federation.splits import Splits
from fedbbpt.types import Hello, Receipt
from fedbbpt.wire.channel import connect
from fedbbpt.wire.patience import LONGEST_PAUSE_SECONDS
from tests.federation import AdvancingLoop, OverGrpc, play
from tests.tiny_run import ROUNDS, undisturbed

HELLO = Hello("anna", "key", 4, frozenset({"float32"}))


class Waiting:
    """A clock that only pauses advance."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OverGrpc]:
    made = OverGrpc(splits, tmp_path / "run.db", server_loop)
    yield made
    made.close()


def test_pauses_grow_and_patience_ends() -> None:
    waiting = Waiting()
    with connect("127.0.0.1:1") as channel, pytest.raises(CoordinatorUnavailable):
        RemoteCoordinator(channel, patience_seconds=60.0, clock=waiting.clock, pause=waiting.pause).join(HELLO)
    assert 60.0 < waiting.now <= 60.0 + LONGEST_PAUSE_SECONDS
    assert max(waiting.pauses[:3]) <= 0.4
    assert 1.0 < max(waiting.pauses) <= LONGEST_PAUSE_SECONDS


def test_a_permanent_error_is_not_retried(federation: OverGrpc) -> None:
    waiting = Waiting()
    link = RemoteCoordinator(federation.channel(), clock=waiting.clock, pause=waiting.pause)
    with pytest.raises(InvalidHello):
        link.join(Hello("anna", "key", 0, frozenset({"float32"})))
    assert waiting.pauses == []


def test_a_run_that_ended_meanwhile_is_no_error(federation: OverGrpc, splits: Splits) -> None:
    """The restarted coordinator ends the streams, and updates that were not sent are too late."""
    clients = federation.clients()
    play(clients, ROUNDS)
    tasks = [client.task() for client in clients]
    for client, task in zip(clients, tasks, strict=True):
        assert client.submit(task) is Receipt.COUNTED
    federation.restart()
    assert clients[0].submit(tasks[0]) is Receipt.TOO_LATE
    assert all(client.finished() for client in clients)
    assert federation.course() == undisturbed(splits)
