"""The attacks of `bench attack`: the coordinator counts them, and a rule takes their effect away."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.bench.attack import report
from fedbbpt.bench.attack.attacks import ATTACKS, reversed_update
from fedbbpt.bench.attack.grid import HONEST, AttackGrid, Record
from fedbbpt.bench.attack.liars import LyingCrew, with_liars
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.types import Measurement, Phase, Task, TaskId, Update
from tests.tiny_run import fake_ptm, job, write_data

CLIENTS, LIARS = 6, 2


def splits_of(folder: Path, method: str = "fed-cma", rule: str = "none") -> Splits:
    tiny = job(write_data(folder), method=method, clients=CLIENTS, rounds=8).model_dump()
    tiny["cohort"] |= {"quorum": 1.0} | ({} if rule == "none" else {"robust": rule, "adversaries": LIARS})
    return prepare(Job.model_validate(tiny))


def dev_loss(splits: Splits, attack: str, liars: int) -> float:
    """Returns the loss on all examples of the prompt that the last round began with."""
    lying = with_liars(splits, ATTACKS[attack], liars)
    crew = partial(LyingCrew, attack=ATTACKS[attack], liars=liars)
    _, reports = simulate(lying, fake_ptm(), crew=crew)
    assert all(each.clients == CLIENTS for each in reports), "every lie is counted"
    assert reports[-1].train_loss is None and reports[-2].train_loss is not None
    return reports[-2].train_loss


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("method", ["fed-cma", "fedavg-bbt"])
def test_the_coordinator_counts_every_lie(tmp_path: Path, attack: str, method: str) -> None:
    """Kills: an attack that is refused, so that it measures nothing."""
    dev_loss(splits_of(tmp_path, method), attack, LIARS)


def test_scaled_lies_raise_the_loss_and_a_rule_takes_them_away(tmp_path: Path) -> None:
    honest = dev_loss(splits_of(tmp_path / "a"), "scaled", 0)
    attacked = dev_loss(splits_of(tmp_path / "b"), "scaled", LIARS)
    defended = dev_loss(splits_of(tmp_path / "c", rule="clip"), "scaled", LIARS)
    assert attacked > 10 * honest
    assert defended < 2 * honest


def test_a_reversed_update_prefers_what_is_worst() -> None:
    task = Task(TaskId("run", 0, "anna", Phase.UPDATE), 1, {"mean": np.zeros(2, np.float32)}, 60.0)
    update = Update({"losses": np.array([1.0, 2.0, 4.0]), "mean": np.ones(2)}, 1.0, Measurement(2.0, 10, 9))
    lie = reversed_update(update, task, classes=2)
    assert lie.arrays["losses"].tolist() == [4.0, 3.0, 1.0]
    assert lie.arrays["mean"].tolist() == [-1.0, -1.0]
    assert lie.measurement.dev_correct == 1 and lie.measurement.dev_loss_sum > 10
    assert replace(lie, arrays={}, measurement=update.measurement) == replace(update, arrays={})


def test_the_table_has_a_row_for_each_attack_and_number_of_liars(tmp_path: Path) -> None:
    grid = AttackGrid(("scaled",), (1, 2), ("none", "clip"), (0,), 10, 16, 20, PtmSection())
    records = [
        Record(attack=attack, liars=liars, rule=rule, seed=0, accuracy=accuracy, test_examples=350, seconds=1.0)
        for attack, liars, rule, accuracy in [
            (HONEST, 0, "none", 0.5),
            (HONEST, 0, "clip", 0.52),
            ("scaled", 1, "none", 0.2),
            ("scaled", 1, "clip", 0.51),
            ("scaled", 2, "none", 0.1),
        ]
    ]
    assert report.rows(grid, records) == [
        (HONEST, "0 of 10", "50.0", "52.0"),
        ("scaled", "1 of 10", "20.0", "51.0"),
        ("scaled", "2 of 10", "10.0", ""),
    ]
    page, _ = report.write(grid, records, "fedbbpt bench attack", tmp_path)
    assert "| scaled | 1 of 10 | 20.0 | 51.0 |" in page.read_text()
