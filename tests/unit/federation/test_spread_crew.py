"""Clients that are spread over workers give the bits of one process. The workers here share this process."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.errors import ChildFailed
from fedbbpt.federation.crew import CrewPlan
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.federation.spread_crew import SpreadCrew, WorkerPart, ended
from fedbbpt.interfaces import Ptm
from tests.tiny_run import Course, fake_ptm, job, undisturbed


class Here:
    """A worker that computes when its result is waited for."""

    def __init__(self, part: WorkerPart) -> None:
        self._part = part

    def call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        return lambda: getattr(self._part, method)(*arguments)


class Gone:
    """A worker that has ended."""

    def call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        def result() -> Any:
            raise ended()

        return result


def spread(count: int) -> Callable[[CrewPlan, Ptm], SpreadCrew]:
    def crew(plan: CrewPlan, ptm: Ptm) -> SpreadCrew:
        parts = [WorkerPart(plan, lambda: nullcontext(fake_ptm()), index, count) for index in range(count)]
        return SpreadCrew(plan, [Here(part) for part in parts], lambda: None)

    return crew


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bits_do_not_depend_on_the_number_of_workers(
    splits: Splits, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbbpt.federation.spread_crew.TASKS_AT_A_TIME", 2)
    assert Course.of(*simulate(splits, fake_ptm(), crew=spread(workers))) == undisturbed(splits)


def test_spread_simulation_continues_in_one_process(data: Path, tmp_path: Path) -> None:
    splits = prepare(job(data, method="fed-bpt"))

    class Crash(Exception):
        pass

    def crash(status: object) -> None:
        raise Crash

    with pytest.raises(Crash):
        simulate(splits, fake_ptm(), crash, tmp_path, spread(2))
    assert Course.of(*simulate(splits, fake_ptm(), folder=tmp_path)) == undisturbed(splits)


def test_worker_that_has_ended_ends_the_simulation_in_words(splits: Splits) -> None:
    with pytest.raises(ChildFailed, match="a process with clients has ended; the same command again, which continues"):
        simulate(splits, fake_ptm(), crew=lambda plan, ptm: SpreadCrew(plan, [Gone()], lambda: None))
