"""A simulation that is interrupted continues from its folder, and ends with the same bits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import StoreMismatch
from fedbbpt.federation.crew import CrewPlan, LocalCrew
from fedbbpt.federation.private_files import PrivateFiles
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm, Store
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.round_store import RoundStore
from fedbbpt.types import Arrays, Member, Phase, Snapshot, Task, TaskId, Update
from tests.tiny_run import ROUNDS, Course, fake_ptm, job, undisturbed


class Crash(Exception):
    """Stands for kill -9: nothing after it runs, except that the file is closed."""


def crashing_after(updates: int) -> Callable[[CrewPlan, Ptm], LocalCrew]:
    """Returns a crew of which only so many updates arrive, one at a time."""

    class Crashing(LocalCrew):
        def answers(self, tasks: Sequence[Task]) -> Iterator[Sequence[Update]]:
            nonlocal updates
            for part in super().answers(tasks):
                for update in part:
                    if not updates:
                        raise Crash
                    updates -= 1
                    yield [update]

    return Crashing


@pytest.mark.parametrize("method", ["fed-cma", "fed-bpt"])
def test_simulation_that_was_killed_anywhere_ends_with_the_same_bits(data: Path, tmp_path: Path, method: str) -> None:
    splits = prepare(job(data, method=method))
    updates = len(splits.train) * (ROUNDS + 1)
    for number in range(updates + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            simulate(splits, fake_ptm(), folder=folder, crew=crashing_after(number))
        except Crash:
            assert number < updates
        assert Course.of(*simulate(splits, fake_ptm(), folder=folder)) == undisturbed(splits)


def test_killed_twice_in_one_round(splits: Splits, tmp_path: Path) -> None:
    for updates in (4, 1):
        with pytest.raises(Crash):
            simulate(splits, fake_ptm(), folder=tmp_path, crew=crashing_after(updates))
    assert Course.of(*simulate(splits, fake_ptm(), folder=tmp_path)) == undisturbed(splits)


def test_only_the_remaining_rounds_are_played(splits: Splits, tmp_path: Path) -> None:
    first = Simulation(splits, fake_ptm(), tmp_path)
    played = [closed.report.round for closed in islice(first.rounds(), 2)]
    first.close()
    second = Simulation(splits, fake_ptm(), tmp_path)
    assert [report.round for report in second.reports_since(0)] == played == [0, 1]
    assert [closed.report.round for closed in second.rounds()] == list(range(2, ROUNDS + 1))
    second.close()


def test_folder_of_another_job_is_refused(data: Path, splits: Splits, tmp_path: Path) -> None:
    Simulation(splits, fake_ptm(), tmp_path).close()
    with pytest.raises(StoreMismatch, match="of another job"):
        Simulation(prepare(job(data, method="fed-bpt")), fake_ptm(), tmp_path)


def test_private_arrays_are_those_of_the_committed_round(tmp_path: Path) -> None:
    files = PrivateFiles(tmp_path)
    kept: Mapping[str, Arrays] = {"client-0001": {"w/1": np.arange(3.0)}}
    later: Mapping[str, Arrays] = {"client-0001": {"w/1": np.arange(3.0) + 1}}
    files.save(4, kept)
    files.save(5, later)  # a crash here leaves round 4 in the store
    for round, wanted in ((4, kept), (5, later)):
        found = files.load(round)
        assert found.keys() == wanted.keys()
        assert np.array_equal(found["client-0001"]["w/1"], wanted["client-0001"]["w/1"])
    files.save(6, later)
    assert files.load(4) == {} == PrivateFiles(tmp_path / "empty").load(0)


def test_updates_of_an_open_round_are_not_written() -> None:
    durable: Store = MemoryStore()
    store = RoundStore(durable)
    member = Member("a", "key", 3, 0)
    store.put_members([member])
    task_id = TaskId("run", 0, "a", Phase.UPDATE)
    store.put_updates([(task_id, Update({}, 1.0))])
    assert store.updates(0).keys() == {"a"} and not durable.updates(0) and not durable.members()
    store.commit(Snapshot(1, {}))
    assert durable.members() == {"a": member} and durable.load() == Snapshot(1, {}) and not store.updates(1)
