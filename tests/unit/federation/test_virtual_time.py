"""Simulations in which clients take virtual time: asynchronous runs, and synchronous ones to compare them with."""

from pathlib import Path
from typing import Any

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.types import Report, Task
from tests.tiny_run import Course, fake_ptm, job

METHODS = ("fedavg-bbt", "fed-bbpt")


def splits(data: Path, method: str, clients: int = 5, rounds: int = 4, **cohort: Any) -> Splits:
    made = job(data, method=method, clients=clients, rounds=rounds)
    return prepare(made.model_copy(update={"cohort": made.cohort.model_copy(update=cohort)}))


def one_is_slow(task: Task) -> float:
    return 10.0 if task.id.client_id == "client-0001" else 1.0


def run(splits: Splits, pace: Any = one_is_slow) -> tuple[Report, ...]:
    return simulate(splits, fake_ptm(), pace=pace)[1]


@pytest.mark.parametrize("method", METHODS)
def test_equal_clients_and_a_buffer_of_all_make_the_bits_of_a_synchronous_run(data: Path, method: str) -> None:
    before = Course.of(*simulate(splits(data, method), fake_ptm()))
    course = simulate(splits(data, method, mode="async", buffer=5), fake_ptm(), pace=lambda task: 1.0)
    assert Course.of(*course) == before
    assert [report.seconds for report in course[1]] == [1.0] * 5


@pytest.mark.parametrize("method", METHODS)
def test_straggler_holds_synchronous_rounds_only(data: Path, method: str) -> None:
    assert [report.seconds for report in run(splits(data, method))] == [10.0] * 5
    reports = run(splits(data, method, mode="async", buffer=4, rounds=14))
    assert all(report.seconds == 1.0 for report in reports)
    assert {report.clients for report in reports} == {4}


def test_late_update_counts_in_the_round_that_is_open(data: Path) -> None:
    reports = run(splits(data, "fedavg-bbt", rounds=14, mode="async", buffer=4, max_staleness=10))
    late = next(report for report in reports if report.staleness > 0)
    assert (late.round, late.staleness, late.clients) == (9, 9 / 4, 4)
    reports = run(splits(data, "fedavg-bbt", rounds=14, mode="async", buffer=4, max_staleness=8))
    assert not any(report.staleness for report in reports)


def test_deadline_expires_in_virtual_time(data: Path) -> None:
    """The slow client lapses, and is asked again after it has answered, too late."""
    reports = run(splits(data, "fedavg-bbt", rounds=14, deadline_seconds=3.0))
    assert [report.seconds for report in reports[:3]] == [3.0, 1.0, 1.0]
    assert {report.clients for report in reports} == {4}
    assert sum(report.seconds == 3.0 for report in reports) == 2


def test_paces_are_drawn_by_the_seed(data: Path) -> None:
    made = splits(data, "fedavg-bbt", mode="async")
    found = simulate(made, fake_ptm())
    assert Course.of(*found) == Course.of(*simulate(made, fake_ptm()))
    assert len({report.seconds for report in found[1]}) > 1


def test_unfinished_simulation_in_virtual_time_is_refused(data: Path, tmp_path: Path) -> None:
    made = splits(data, "fedavg-bbt", mode="async")
    simulation = Simulation(made, fake_ptm(), tmp_path)
    next(simulation.rounds())
    simulation.close()
    with pytest.raises(InvalidInput, match=r"an unfinished simulation of asynchronous rounds.*to begin anew"):
        Simulation(made, fake_ptm(), tmp_path)


def test_finished_simulation_in_virtual_time_is_shown_again(data: Path, tmp_path: Path) -> None:
    made = splits(data, "fedavg-bbt", mode="async")
    found = simulate(made, fake_ptm(), folder=tmp_path)
    assert Course.of(*simulate(made, fake_ptm(), folder=tmp_path)) == Course.of(*found)
