"""Many runs on one coordinator: real processes, and their folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.cli.terminal.signals import TERMINATED
from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.splits import Splits
from fedbbpt.job.job_file import job_text
from fedbbpt.types import Report
from tests.command_line import CommandLine
from tests.processes import Machine, free_port
from tests.tiny_run import CLIENTS, undisturbed


class Hub:
    """A coordinator of many runs on a fixed port, a PTM service, and the data of the clients."""

    def __init__(self, machine: Machine, splits: Splits, run: CommandLine) -> None:
        self.machine, self.folder, self._run, self.port = machine, machine.folder, run, free_port()
        self.splits = splits
        for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
            write_jsonl(self.folder / f"{index}.jsonl", train, splits.job.task.labels)
            write_jsonl(self.folder / f"{index}.dev.jsonl", dev, splits.job.task.labels)
        (self.folder / "job.toml").write_text(job_text(splits.job))
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        self.ptm = machine.address("ptm")
        self.start()

    def start(self) -> None:
        self.machine.start("hub", "coordinator", "serve", "--state", "runs", "--port", str(self.port))
        self.machine.address("hub")

    @property
    def _there(self) -> tuple[str, str]:
        return ("--coordinator", f"127.0.0.1:{self.port}")

    def ask(self, *words: str) -> Any:
        ended = self._run(*words, *self._there, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    def refused(self, *words: str) -> str:
        ended = self._run(*words, *self._there)
        assert ended.code == 8, (ended.out, ended.err)
        return ended.message

    def join(self, run: str) -> None:
        for index in range(CLIENTS):
            # The names sort as the simulation's do.
            own = ("--name", f"client-{index:04d}", "--state", f"{run}.{index}", "--out", f"{run}.{index}.safetensors")
            data = ("--data", f"{index}.jsonl", "--dev", f"{index}.dev.jsonl", "--one-class")
            self.machine.start(f"{run}.{index}", "client", "join", *self._there, "--run", run, *own, *data)

    def finish(self, run: str) -> None:
        for index in range(CLIENTS):
            assert self.machine.wait(f"{run}.{index}") == 0, self.machine.log(f"{run}.{index}")


@pytest.fixture
def hub(tmp_path: Path, splits: Splits, command_line: CommandLine) -> Iterator[Hub]:
    with Machine(tmp_path) as machine:
        yield Hub(machine, splits, command_line)


@pytest.mark.slow
def test_runs_are_submitted_joined_continued_and_deleted(hub: Hub) -> None:
    """The coordinator is killed in between; the result is that of the simulation, bit for bit."""
    assert hub.ask("runs", "list") == {"runs": []}
    assert hub.ask("runs", "submit", "job.toml", "--ptm", hub.ptm)["state"] == "waiting"
    assert hub.ask("runs", "submit", "job.toml", "--ptm", hub.ptm)["state"] == "waiting", "the same request again"
    assert hub.ask("runs", "submit", "job.toml", "--name", "other", "--ptm", hub.ptm)["name"] == "other"
    assert "other: another run has this name" in hub.refused("runs", "submit", "job.toml", "--name", "other")
    assert "the coordinator has 2 runs hint: the name of one: other, tiny" in hub.refused("status")
    hub.machine.kill("hub")
    hub.start()
    hub.join("tiny")
    hub.finish("tiny")
    expected = undisturbed(hub.splits)
    for path in (hub.folder / "runs/tiny/prompt.safetensors", hub.folder / "tiny.0.safetensors"):
        z, card = read_prompt(path)
        assert z.tobytes() == expected.z
        assert (card.ptm, card.ptm_revision, card.ptm_precision) == ("fake", "fake-2", "float32")
    folder = hub.folder / "runs/tiny"
    rounds = hub.splits.job.run.rounds
    assert [row.round for row in metrics(folder)] == list(range(rounds + 1))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["tested"] is False and summary["state"] == "finished" and summary["ptm_revision"] == "fake-2"

    assert "other: the run is waiting" in hub.refused("runs", "delete", "other")
    assert hub.ask("runs", "continue", "tiny", "--rounds", "2")["rounds"] == rounds + 3
    assert not (folder / "summary.json").exists()
    hub.machine.kill("hub")
    hub.start()
    hub.join("tiny")
    hub.finish("tiny")
    assert [row.round for row in metrics(folder)] == list(range(rounds + 4))
    states = {run["name"]: run["state"] for run in hub.ask("runs", "list")["runs"]}
    assert states == {"other": "waiting", "tiny": "finished"}
    assert hub.ask("result", "--run", "tiny", "--out", "fetched.safetensors")["ptm_revision"] == "fake-2"

    hub.ask("runs", "stop", "other")
    hub.ask("runs", "delete", "other")
    assert sorted(path.name for path in (hub.folder / "runs").iterdir()) == ["lock", "tiny"]
    assert hub.machine.end("hub") == TERMINATED, hub.machine.log("hub")


@pytest.mark.slow
def test_a_damaged_run_does_not_keep_the_others_from_going_on(hub: Hub) -> None:
    for name in ("good", "bad"):
        hub.ask("runs", "submit", "job.toml", "--name", name, "--ptm", hub.ptm)
    assert hub.machine.end("hub") == TERMINATED
    (hub.folder / "runs/bad/run.db").write_bytes(b"no database" * 100)
    hub.start()
    assert "bad: the run cannot be opened" in hub.refused("runs", "show", "bad")
    assert [run["name"] for run in hub.ask("runs", "list")["runs"]] == ["good"]
    hub.join("good")
    hub.finish("good")


def metrics(folder: Path) -> list[Report]:
    return [Report(**json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
