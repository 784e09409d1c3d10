"""Coordinators that stand by for each other on a PostgreSQL database, as real processes."""

import random
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.federation.splits import Splits
from fedbbpt.server.remote import RemoteRun
from fedbbpt.wire.channel import connect
from tests.postgres import PostgresServer
from tests.processes import Machine, free_port
from tests.robustness.test_processes_crash import ByHand, expected, long, ptm
from tests.tiny_run import Course

pytestmark = pytest.mark.slow

__all__ = ["expected", "long", "ptm"]  # fixtures


class WithStandby(ByHand):
    """Clients that know the addresses of two coordinators, of which one has the store and the other stands by."""

    def __init__(self, machine: Machine, ptm: str, splits: Splits, url: str) -> None:
        self._url = url
        super().__init__(machine, ptm, splits)

    def start_coordinator(self) -> None:
        """Starts both."""
        self._serve("coordinator", self.port)
        self.machine.address("coordinator")
        self.spare = free_port()
        self.stand_by()

    def _serve(self, name: str, port: int) -> None:
        arguments = ("--port", str(port), "--store", self._url, "--standby", "--ptm", self.ptm)
        self.machine.start(name, "coordinator", "serve", "job.toml", *arguments)

    def stand_by(self) -> None:
        self._serve("standby", self.spare)
        self.machine.until_log("standby", "standing by")

    def take_over(self) -> None:
        """Waits until the standby has the store, and gives it the name of the coordinator."""
        self.machine.address("standby")
        self.machine.rename("standby", "coordinator")
        self.port, self.spare = self.spare, self.port
        self.operator = RemoteRun(connect(f"127.0.0.1:{self.port}"))

    @property
    def addresses(self) -> str:
        return f"127.0.0.1:{self.port},127.0.0.1:{self.spare}"


@pytest.fixture
def pair(tmp_path: Path, ptm: str, long: Splits, postgres: PostgresServer) -> Iterator[WithStandby]:
    with Machine(tmp_path) as machine:
        yield WithStandby(machine, ptm, long, postgres.url(f"s{secrets.token_hex(4)}"))


def test_the_standby_takes_over_when_the_coordinator_is_killed(pair: WithStandby, expected: Course) -> None:
    pair.start_clients()
    for round in (4, 12):
        pair.kill_soon_after(round, "coordinator", random.Random(round))
        pair.take_over()
        pair.stand_by()
    pair.machine.kill("standby")
    assert pair.finish() == expected


def test_a_coordinator_that_was_replaced_ends(pair: WithStandby, expected: Course, postgres: PostgresServer) -> None:
    """It stands still while its session ends, as on a machine that has lost its network."""
    pair.start_clients()
    pair.until(lambda status: status.round >= 4)
    pair.machine.send("coordinator", signal.SIGSTOP)
    postgres.end_sessions()
    pair.machine.address("standby")
    pair.machine.send("coordinator", signal.SIGCONT)
    assert pair.machine.wait("coordinator") == 6
    assert "another coordinator has taken over" in pair.machine.log("coordinator")
    pair.machine.rename("standby", "coordinator")
    pair.operator = RemoteRun(connect(f"127.0.0.1:{pair.spare}"))
    assert pair.finish() == expected
