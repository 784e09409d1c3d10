"""A search under a budget is the run that simulation plays, cut where the next prompt would cost too much."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.bench.methods.search import CHECKPOINTS, Turn, accuracies, checkpoints, curve, federations, play
from fedbbpt.bench.methods.traffic import weigh
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.settings import task_spec
from tests.federation import engine, job

BUDGET = 1500


def splits_of(data: Path, rounds: int = 1000, **cohort: Any) -> Splits:
    made = job(data, rounds=rounds)
    return prepare(made.model_copy(update={"cohort": made.cohort.model_copy(update=cohort)}))


def undisturbed(splits: Splits, turns: tuple[Turn, ...], more: int = 0) -> Any:
    """The same run with its number of rounds known from the start."""
    plan = splits.job.run.model_copy(update={"rounds": len(turns) - 1 + more})
    return simulate(replace(splits, job=splits.job.model_copy(update={"run": plan})), engine(), lambda status: None)


@pytest.mark.parametrize("cohort", [{}, {"size": 1, "quorum": 1.0}], ids=["everybody", "one client a round"])
def test_the_budget_pays_for_as_many_rounds_as_a_run_could_have(data: Path, cohort: dict[str, Any]) -> None:
    """To the query, those on dev examples included."""
    splits = splits_of(data, **cohort)
    turns = play([splits], engine(), BUDGET)
    _, reports = undisturbed(splits, turns)
    assert len(reports) == len(turns) > 3
    assert turns[-1][0].queries == sum(report.queries for report in reports) <= BUDGET
    _, longer = undisturbed(splits, turns, more=1)
    assert sum(report.queries for report in longer) > BUDGET


def test_the_curve_ends_where_the_run_ends(data: Path) -> None:
    splits = splits_of(data)
    turns = play([splits], engine(), BUDGET)
    result, _ = undisturbed(splits, turns)
    points = curve(turns, [splits], splits.test, engine())
    scorer = PromptScorer(engine(), task_spec(splits.job), splits.job.space())
    assert points[-1].best == Measured.of(scorer.judge(splits.test, result.z[None])).accuracy
    assert points[0].last == points[0].best
    assert points[-1].queries == turns[-1][0].queries
    assert [point.round for point in points] == checkpoints(len(turns))


def test_accuracies_are_those_of_the_prompts_one_by_one(data: Path) -> None:
    """Kills: offsets that are left out, chunks in the wrong order."""
    made = job(data).model_dump()
    made["task"]["prompt"]["offsets"] = True
    splits = prepare(type(job(data)).model_validate(made))
    z = np.random.default_rng(0).normal(size=(5, splits.job.space().dim)).astype(np.float32) * 3
    scorer = PromptScorer(engine(), task_spec(splits.job), splits.job.space())
    apart = [Measured.of(scorer.judge(splits.test, one[None])).accuracy for one in z]
    np.testing.assert_array_equal(accuracies(z, splits, splits.test, engine()), apart)
    assert len(set(apart)) > 1


def test_whoever_learns_alone_takes_a_share_of_the_budget_and_never_sees_others(data: Path) -> None:
    splits = splits_of(data)
    parts = federations(splits, "alone")
    assert [part.train for part in parts] == [(train,) for train in splits.train]
    turns = play(parts, engine(), BUDGET)
    queries = [step.queries for step in turns[-1]]
    assert sum(queries) <= BUDGET and min(queries) > 0
    (point, *_) = reversed(curve(turns, parts, splits.test, engine()))
    alone = [curve([(turn[i],) for turn in turns], [parts[i]], splits.test, engine())[-1] for i in range(len(parts))]
    assert point.best == pytest.approx(np.mean([each.best for each in alone]))
    assert point.last == pytest.approx(np.mean([each.last for each in alone]))
    assert point.queries == sum(queries)


def test_a_budget_below_the_first_look_at_dev_examples_is_refused(data: Path) -> None:
    with pytest.raises(InvalidInput, match="at least 30"):
        play([splits_of(data)], engine(), 29)
    assert len(play([splits_of(data)], engine(), 30)) == 1


@pytest.mark.parametrize("rounds", [1, 2, 5, 14, 201])
def test_checkpoints_go_from_the_first_to_the_last_round(rounds: int) -> None:
    found = checkpoints(rounds)
    assert found[0] == 0 and found[-1] == rounds - 1
    assert len(found) <= CHECKPOINTS
    gaps = np.diff(found)
    assert (gaps > 0).all()
    assert rounds < 100 or gaps[0] < gaps[-1] / 10


def test_bytes_are_those_of_messages(data: Path) -> None:
    """Kills: arrays counted without their headers, tasks counted as updates."""
    played = next(iter(Simulation(splits_of(data), engine()).rounds()))
    arrays_down = sum(array.nbytes for task, _ in played.exchanges for array in task.arrays.values())
    arrays_up = sum(array.nbytes for _, update in played.exchanges for array in update.arrays.values())
    up, down = weigh(played.exchanges)
    clients = len(played.exchanges)
    assert arrays_up == clients * 6 * 4 and arrays_down == clients * 12 * 4
    assert 0 < down - arrays_down < 200 * clients
    assert 0 < up - arrays_up < 400 * clients
    assert weigh(played.exchanges[:1])[0] < up / 2


def test_costs_grow_with_rounds(data: Path) -> None:
    turns = play([splits_of(data)], engine(), BUDGET)
    steps = [turn[0] for turn in turns]
    assert (steps[0].answers, steps[0].bytes_up, steps[0].bytes_down) == (0, 0, 0)
    for name in ("queries", "answers", "bytes_up", "bytes_down"):
        assert (np.diff([getattr(step, name) for step in steps]) > 0).all()
    assert steps[-1].answers == 3 * (len(steps) - 1)
