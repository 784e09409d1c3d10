"""A simulated run, whose result depends on nothing but its job."""

from pathlib import Path

from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.types import RunState, RunStatus
from tests.tiny_run import CLIENTS, ROUNDS, fake_ptm, job, undisturbed


def seeded(job: Job, seed: int) -> Job:
    return job.model_copy(update={"run": job.run.model_copy(update={"seed": seed})})


def test_same_job_ends_with_the_same_bits(data: Path, splits: Splits) -> None:
    assert undisturbed(splits) == undisturbed(prepare(job(data)))


def test_another_seed_ends_with_another_prompt(data: Path, splits: Splits) -> None:
    assert undisturbed(splits).z != undisturbed(prepare(seeded(job(data), 1))).z


def test_result_is_the_best_prompt_on_dev_examples_and_not_the_last(data: Path) -> None:
    # With this seed the last round happens to be worse than another one.
    result, reports = simulate(prepare(seeded(job(data, method="fed-bbpt"), 1)), fake_ptm(), lambda status: None)
    best = max(reports, key=lambda report: report.rank)
    assert result.measured == best
    assert best.round < reports[-1].round


def test_each_round_is_reported_once_with_all_clients(splits: Splits) -> None:
    seen: list[RunStatus] = []
    result, reports = simulate(splits, fake_ptm(), seen.append)
    assert [status.last for status in seen] == list(reports)
    assert [report.round for report in reports] == list(range(ROUNDS + 1))
    assert {report.clients for report in reports} == {CLIENTS}
    assert [status.state for status in seen] == [RunState.RUNNING] * ROUNDS + [RunState.FINISHED]
    assert seen[-1].best == result.measured
    assert seen[-1].queries == sum(report.queries for report in reports)


def test_rounds_that_close_within_one_turn_of_all_clients_are_all_reported(data: Path) -> None:
    whole = job(data)
    alone = whole.model_copy(update={"cohort": whole.cohort.model_copy(update={"size": 1, "quorum": 1.0})})
    seen: list[RunStatus] = []
    _, reports = simulate(prepare(alone), fake_ptm(), seen.append)
    assert [report.round for report in reports] == list(range(ROUNDS + 1))
    assert [status.last for status in seen] == list(reports)


def test_deadline_never_expires(data: Path, splits: Splits) -> None:
    whole = job(data)
    hasty = whole.model_copy(update={"cohort": whole.cohort.model_copy(update={"deadline_seconds": 1e-3})})
    assert undisturbed(prepare(hasty)).z == undisturbed(splits).z


def test_bytes_are_not_counted(splits: Splits) -> None:
    _, reports = simulate(splits, fake_ptm(), lambda status: None)
    assert {(report.bytes_up, report.bytes_down) for report in reports} == {(None, None)}
