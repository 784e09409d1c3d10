"""Rounds that ask more clients than they need, and close when enough have answered."""

from collections import Counter
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.federation.assemble import cohort_rules
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, parse_job
from fedbbpt.job.job_file import job_text
from fedbbpt.types import RunState
from tests.tiny_run import ROUNDS, Course, fake_ptm, job


def over_sampled(data: Path, clients: int = 6, size: int = 2, factor: float = 2.0) -> Job:
    whole = job(data, clients=clients)
    changed = {"size": size, "over_sample": factor, "quorum": 1.0}
    return whole.model_copy(update={"cohort": whole.cohort.model_copy(update=changed)})


def test_round_counts_as_many_as_its_size(data: Path) -> None:
    splits = prepare(over_sampled(data))
    course = Course.of(*simulate(splits, fake_ptm()))
    assert course.clients == [2] * (ROUNDS + 1)
    assert course == Course.of(*simulate(splits, fake_ptm())), "the order of arrival is drawn by the seed"


def test_clients_that_were_overtaken_stay_members(data: Path) -> None:
    simulation = Simulation(prepare(over_sampled(data)), fake_ptm())
    answered = Counter[str]()
    for closed in simulation.rounds():
        assert len(closed.status.members) == 6
        answered.update(task.id.client_id for task, _ in closed.exchanges)
    assert closed.status.state is RunState.FINISHED
    assert len(answered) > 2, "the draws differ from round to round"


def test_more_clients_are_asked_than_a_round_needs(data: Path) -> None:
    rules = cohort_rules(over_sampled(data, size=3, factor=1.5))
    assert (rules.asked, rules.enough, rules.quorum) == (5, 3, 3)
    alone = cohort_rules(over_sampled(data, size=3, factor=1.0))
    assert (alone.asked, alone.enough) == (3, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("size = 0\nover_sample = 1.5", "without a size, all clients are asked"),
        ("size = 3\nover_sample = 2.5", "2.5 times cohort.size = 3 is more than cohort.clients = 6"),
    ],
)
def test_over_sampling_that_is_impossible_is_refused(data: Path, line: str, message: str) -> None:
    text = job_text(over_sampled(data)).replace("size = 2\n", "").replace("over_sample = 2.0", line)
    with pytest.raises(InvalidJob, match=message):
        parse_job(text)
