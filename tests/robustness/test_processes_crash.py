"""Real processes, killed with signal 9 at random moments and started again with the same command."""

import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.assemble import client_name
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import PROMPT, SUMMARY
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import Report, RunStatus
from fedbbpt.wire.channel import connect
from tests.processes import Launcher, Machine, free_port, mentioning, wait_for_end
from tests.slow import slow_except
from tests.tiny_run import CLIENTS, Course, job, undisturbed

ROUNDS = 30
KILL_WITHIN_SECONDS = 0.05
"""The longest time between the start of the round that a test waits for and the kill."""


@pytest.fixture(scope="module")
def long(data: Path) -> Splits:
    """A run with enough rounds for several kills."""
    return prepare(job(data, rounds=ROUNDS))


@pytest.fixture(scope="module")
def expected(long: Splits) -> Course:
    return undisturbed(long)


class ByHand:
    """A coordinator on a fixed port and three clients, each started with a command of its own."""

    def __init__(self, machine: Machine, ptm: str, splits: Splits) -> None:
        self.machine, self.ptm, self.port = machine, ptm, free_port()
        self.operator = RemoteRun(connect(f"127.0.0.1:{self.port}"))
        job = splits.job
        (machine.folder / "job.toml").write_text(job_text(job))
        for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
            write_jsonl(machine.folder / f"{client_name(index)}.jsonl", train, job.task.labels)
            write_jsonl(machine.folder / f"{client_name(index)}.dev.jsonl", dev, job.task.labels)
        self.start_coordinator()

    @property
    def addresses(self) -> str:
        """What clients are told."""
        return f"127.0.0.1:{self.port}"

    def start_coordinator(self) -> None:
        arguments = ("--port", str(self.port), "--store", "run.db", "--ptm", self.ptm)
        self.machine.start("coordinator", "coordinator", "serve", "job.toml", *arguments)
        self.machine.address("coordinator")

    def start_client(self, index: int) -> None:
        name = client_name(index)
        places = ("--coordinator", self.addresses, "--data", f"{name}.jsonl", "--dev", f"{name}.dev.jsonl")
        self.machine.start(name, "client", "join", *places, "--name", name, "--state", f"{name}.state", "--one-class")

    def start_clients(self) -> None:
        for index in range(CLIENTS):
            self.start_client(index)

    def until(self, holds: Callable[[RunStatus], bool]) -> None:
        for status, _ in self.operator.watch():
            if holds(status):
                return
        raise AssertionError("the run ended first")

    def kill_soon_after(self, round: int, name: str, draw: random.Random) -> None:
        self.until(lambda status: status.round >= round)
        killing = Timer(draw.uniform(0, KILL_WITHIN_SECONDS), self.machine.kill, [name])
        killing.start()
        killing.join()

    def finish(self) -> Course:
        """Waits for the end of the run and of every process, and returns the run's result and reports."""
        reports: list[Report] = []
        for _, news in self.operator.watch():
            reports += news
        result = self.operator.result()
        for index in range(CLIENTS):
            assert self.machine.wait(client_name(index)) == 0, self.machine.log(client_name(index))
        assert self.machine.end("coordinator") == 0, self.machine.log("coordinator")
        z, _ = read_prompt(self.machine.folder / PROMPT)
        assert z.tobytes() == result.z.tobytes()
        return Course.of(result, reports)


@pytest.fixture(scope="module")
def ptm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Machine(tmp_path_factory.mktemp("ptm")) as machine:
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        yield machine.address("ptm")


@pytest.fixture
def by_hand(tmp_path: Path, ptm: str, long: Splits) -> Iterator[ByHand]:
    with Machine(tmp_path) as machine:
        yield ByHand(machine, ptm, long)


def test_a_coordinator_killed_again_and_again_continues_the_run(by_hand: ByHand, expected: Course) -> None:
    """It is killed while clients join, at a random moment soon after a round, and after the last round."""
    by_hand.start_clients()
    by_hand.until(lambda status: bool(status.members))
    by_hand.machine.kill("coordinator")
    by_hand.start_coordinator()
    by_hand.kill_soon_after(4, "coordinator", random.Random(3))
    by_hand.start_coordinator()
    by_hand.until(lambda status: status.state.ended)
    by_hand.machine.kill("coordinator")
    by_hand.start_coordinator()
    assert by_hand.finish() == expected


@pytest.mark.slow
def test_a_client_killed_again_and_again_continues_the_run(by_hand: ByHand, expected: Course) -> None:
    """Each round waits for the client until its deadline, and the client is back before."""
    draw = random.Random(4)
    by_hand.start_clients()
    for index, round in enumerate((2, 15)):
        by_hand.kill_soon_after(round, client_name(index), draw)
        by_hand.start_client(index)
    assert by_hand.finish() == expected


def test_a_coordinator_that_cannot_start_says_why(by_hand: ByHand) -> None:
    machine = by_hand.machine
    machine.start("same-store", "coordinator", "serve", "job.toml", "--store", "run.db")
    machine.start("same-port", "coordinator", "serve", "job.toml", "--store", "b.db", "--port", str(by_hand.port))
    with sqlite3.connect(machine.folder / "newer.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    machine.start("newer-store", "coordinator", "serve", "job.toml", "--store", "newer.db")
    assert [machine.wait(name) for name in ("same-store", "same-port", "newer-store")] == [6, 7, 6]
    assert "StoreLocked" in machine.log("same-store")
    assert "PortTaken" in machine.log("same-port")
    assert "StoreTooNew" in machine.log("newer-store")
    by_hand.start_client(0)
    by_hand.until(lambda status: len(status.members) == 1)  # the first coordinator is not disturbed


@pytest.fixture(scope="module")
def job_file(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    path = tmp_path_factory.mktemp("job") / "job.toml"
    path.write_text(job_text(job(data, rounds=ROUNDS)))
    return path


@pytest.mark.parametrize(
    ("stage", "times"),
    slow_except(
        [("starting the PTM", 1), ("starting the coordinator", 1), ("starting 3 clients", 1), ("round 3:", 3)],
        ("round 3:", 3),
    ),
)
def test_ctrl_c_leaves_no_process(job_file: Path, tmp_path: Path, stage: str, times: int) -> None:
    """Ctrl-C is pressed once, or several times while the processes end."""
    out = tmp_path / "run"
    with Launcher(job_file, out) as launcher:
        launcher.until_it_says(stage)
        others = [pid for pid in mentioning(str(out)) if pid != launcher.pid]
        launcher.send(signal.SIGINT)
        for pid in others[: times - 1]:
            wait_for_end([pid])
            launcher.send(signal.SIGINT)
        assert launcher.wait() == 130, launcher.said
    assert mentioning(str(out)) == []


@pytest.mark.slow
def test_a_run_continues_after_its_launcher_was_killed(job_file: Path, tmp_path: Path, expected: Course) -> None:
    """The processes end by themselves, and the same command then continues the same round."""
    out = tmp_path / "run"
    with Launcher(job_file, out) as launcher:
        launcher.until_it_says("round 5:")
        launcher.send(signal.SIGKILL)
        assert launcher.wait() == -signal.SIGKILL
    wait_for_end(mentioning(str(out)))
    assert not (out / SUMMARY).exists()
    with Launcher(job_file, out) as launcher:
        assert launcher.wait() == 0, launcher.said
    assert read_prompt(out / PROMPT)[0].tobytes() == expected.z
