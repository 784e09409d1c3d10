"""The turn of the model's owner between two rounds: its order, and its survival of a crash of the coordinator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed
from fedbbpt.errors import InvalidUpdate
from fedbbpt.federation import assemble
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import OWNER, Hello, Measurement, Phase, Receipt, RunState, Task, Update

CLIENTS = ("anna", "bert")
MEASURED = Measurement(dev_loss_sum=1.0, dev_examples=2, dev_correct=1, queries=3)
JOB = Job.model_validate(
    {
        "run": {"rounds": 2},
        "task": {
            "labels": ["a", "b"],
            "prompt": {"kind": "deep", "layers": 1, "heads": 1, "width": 1, "tokens": 1},
        },
        "cohort": {"clients": 2, "deadline_seconds": 60.0},
        "method": {"name": "fed-sp"},
    }
)


class Run:
    """A coordinator on a file that may be restarted at any time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "run.db"
        self.now = 0.0
        self._open()

    def _open(self) -> None:
        self._store = SqliteStore(self._path, RunRecord("run-1", 0, JOB.digest(""), "2026-01-01T00:00:00+00:00"))
        self.coordinator: Coordinator = assemble.coordinator(JOB, run_settings(JOB, "run-1"), self._store)
        self.coordinator.tick(self.now)
        self._sessions: dict[str, str] = {}

    def restart(self) -> None:
        self._store.close()
        self._open()

    def join(self, *names: str) -> None:
        for name in names:
            hello = Hello(name, f"key of {name}", 10, frozenset(CODECS))
            self._sessions[name], _ = self.coordinator.join(hello, self.now)

    def leave(self, name: str) -> None:
        self.coordinator.leave(self._sessions.pop(name), self.now)

    def task(self, name: str) -> Task | None:
        return self.coordinator.task_for(self._sessions[name])

    def asked(self) -> list[str]:
        return [name for name in self._sessions if self.task(name) is not None]

    def answer(self, name: str, z: float, task: Task | None = None) -> Receipt:
        task = task or self.task(name)
        assert task is not None, f"{name} is not asked"
        measured = Measurement() if name == OWNER else MEASURED
        arrays = {"z": np.full(2, 10.0 * z), "loss": np.array([5.0])}
        travelling = packed({} if task.id.phase is Phase.EVALUATE else arrays, 10.0, task.arrays)
        update = Update(CODECS["float32"].encode(travelling, np.random.default_rng(0)), 10.0, measured)
        return self.coordinator.submit(self._sessions[name], task.id, update, self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.tick(self.now)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def broadcast(task: Task | None) -> tuple[Phase, int, list[float]]:
    assert task is not None
    return task.id.phase, task.id.round, task.arrays["z"].tolist()


def test_a_run_waits_for_its_clients_and_for_the_owner(run: Run) -> None:
    states = []
    for name in ("anna", OWNER, "bert"):
        run.join(name)
        states.append(run.coordinator.state)
    assert states == [RunState.WAITING, RunState.WAITING, RunState.RUNNING]


def test_an_owner_does_not_count_as_a_client(run: Run) -> None:
    run.join("anna", "bert", "carl")
    assert run.coordinator.state is RunState.WAITING


@pytest.mark.parametrize("crashing", [False, True])
def test_the_owner_starts_from_the_average_and_the_clients_from_the_tuned_prompt(run: Run, crashing: bool) -> None:
    """Kills: a task for the owner at the same time as the clients', tasks for the clients before the owner's, an
    average over the owner's answer and theirs, and a coordinator that forgets after a crash whose turn it was."""
    run.join(*CLIENTS, OWNER)

    def pause() -> None:
        if crashing:
            run.restart()
            run.join(*CLIENTS, OWNER)

    for number, (start, averaged, tuned) in enumerate([(0.0, 2.0, 5.0), (5.0, 7.0, 1.0)]):
        assert run.asked() == list(CLIENTS)
        assert broadcast(run.task("anna")) == (Phase.UPDATE, number, [start, start])
        assert run.answer("anna", averaged - 1) is Receipt.COUNTED
        pause()
        assert run.answer("bert", averaged + 1) is Receipt.COUNTED
        pause()
        assert run.asked() == [OWNER]
        task = run.task(OWNER)
        assert broadcast(task) == (Phase.TUNE, number + 1, [averaged, averaged])
        assert run.answer(OWNER, tuned) is Receipt.COUNTED
        pause()
        assert run.answer(OWNER, tuned, task) is Receipt.DUPLICATE
    assert broadcast(run.task("anna")) == (Phase.EVALUATE, 2, [1.0, 1.0])
    for name in CLIENTS:
        run.answer(name, 0.0)
    assert run.coordinator.state is RunState.FINISHED
    assert [report.round for report in run.coordinator.reports(0)] == [0, 1, 2]
    assert [report.clients for report in run.coordinator.reports(0)] == [2, 2, 2]
    assert run.coordinator.result().z.tolist() == [1.0, 1.0]


def test_a_round_waits_for_an_absent_owner(run: Run) -> None:
    run.join(*CLIENTS, OWNER)
    for name in CLIENTS:
        run.answer(name, 1.0)
    run.leave(OWNER)
    run.advance(600.0)
    assert run.asked() == []
    run.join(OWNER)
    assert run.asked() == [OWNER]
    run.answer(OWNER, 4.0)
    assert run.asked() == list(CLIENTS)


def test_a_client_cannot_answer_for_the_owner(run: Run) -> None:
    run.join(*CLIENTS, OWNER)
    task = run.task("anna")
    assert task is not None
    with pytest.raises(InvalidUpdate, match="phase"):
        run.answer("anna", 1.0, replace(task, id=replace(task.id, phase=Phase.TUNE)))


def test_time_and_traffic_of_a_turn_belong_to_the_round(run: Run) -> None:
    run.join(*CLIENTS, OWNER)
    for name in CLIENTS:
        run.answer(name, 1.0)
    run.advance(30.0)
    run.answer(OWNER, 1.0)
    run.advance(12.0)
    for name in CLIENTS:
        run.answer(name, 1.0)
    assert run.coordinator.reports(1)[0].seconds == 42.0
