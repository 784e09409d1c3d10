"""A search under a budget is a simulated run that ends before the first prompt that exceeds the budget."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.bench.methods.search import CHECKPOINTS, PricedRound, accuracies, checkpoints, curve, federations, search
from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.message_sizes import message_bytes
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.settings import task_spec
from tests.tiny_run import fake_ptm, job

BUDGET = 1500


SAMPLED = {"batch_examples": 4, "dev_every": 3}


def splits_of(data: Path, rounds: int = 1000, sampling: dict[str, int] | None = None, **cohort: Any) -> Splits:
    made = job(data, rounds=rounds)
    made = made.model_copy(update={"method": made.method.model_copy(update=sampling or {})})
    return prepare(made.model_copy(update={"cohort": made.cohort.model_copy(update=cohort)}))


def undisturbed(splits: Splits, rounds: tuple[PricedRound, ...], more: int = 0) -> Any:
    """Simulates the same run with `more` additional rounds, and with the number of rounds known from the start."""
    plan = splits.job.run.model_copy(update={"rounds": len(rounds) - 1 + more})
    return simulate(replace(splits, job=splits.job.model_copy(update={"run": plan})), fake_ptm(), lambda status: None)


@pytest.mark.parametrize("cohort", [{}, {"size": 1, "quorum": 1.0}], ids=["everybody", "one client a round"])
@pytest.mark.parametrize("sampling", [{}, SAMPLED, {"dev_every": 4}, {"batch_examples": 4}], ids=str)
def test_a_search_has_all_rounds_that_the_budget_pays_for(
    data: Path, cohort: dict[str, Any], sampling: dict[str, int]
) -> None:
    """The count is exact, and includes queries on dev examples, also those of the last round's choice."""
    splits = splits_of(data, sampling=sampling, **cohort)
    rounds = search([splits], fake_ptm(), BUDGET)
    _, reports = undisturbed(splits, rounds)
    assert len(reports) == len(rounds) > 3
    assert rounds[-1][0].queries == sum(report.queries for report in reports) <= BUDGET
    _, longer = undisturbed(splits, rounds, more=1)
    assert sum(report.queries for report in longer) > BUDGET


@pytest.mark.parametrize("sampling", [{}, SAMPLED, {"dev_every": 4}], ids=str)
def test_the_curve_ends_where_the_run_ends(data: Path, sampling: dict[str, int]) -> None:
    splits = splits_of(data, sampling=sampling)
    rounds = search([splits], fake_ptm(), BUDGET)
    result, _ = undisturbed(splits, rounds)
    points = curve(rounds, [splits], splits.test, fake_ptm())
    scorer = PromptScorer(fake_ptm(), task_spec(splits.job), splits.job.space())
    assert points[-1].best == Measured.of(scorer.judge(splits.test, result.z[None])).accuracy
    assert points[0].last == points[0].best
    assert points[-1].queries == rounds[-1][0].queries
    assert [point.round for point in points] == checkpoints(len(rounds))


def test_accuracies_are_the_same_one_by_one(data: Path) -> None:
    """Kills: offsets that are left out, chunks in the wrong order."""
    made = job(data).model_dump()
    made["task"]["prompt"]["offsets"] = True
    splits = prepare(type(job(data)).model_validate(made))
    z = np.random.default_rng(0).normal(size=(5, splits.job.space().dim)).astype(np.float32) * 3
    scorer = PromptScorer(fake_ptm(), task_spec(splits.job), splits.job.space())
    apart = [Measured.of(scorer.judge(splits.test, one[None])).accuracy for one in z]
    np.testing.assert_array_equal(accuracies(z, splits, splits.test, fake_ptm()), apart)
    assert len(set(apart)) > 1


def test_clients_that_learn_alone_share_the_budget_and_keep_to_their_own_examples(data: Path) -> None:
    splits = splits_of(data)
    parts = federations(splits, "alone")
    assert [part.train for part in parts] == [(train,) for train in splits.train]
    rounds = search(parts, fake_ptm(), BUDGET)
    queries = [prompt.queries for prompt in rounds[-1]]
    assert sum(queries) <= BUDGET and min(queries) > 0
    (point, *_) = reversed(curve(rounds, parts, splits.test, fake_ptm()))
    alone = [curve([(each[i],) for each in rounds], [parts[i]], splits.test, fake_ptm())[-1] for i in range(len(parts))]
    assert point.best == pytest.approx(np.mean([each.best for each in alone]))
    assert point.last == pytest.approx(np.mean([each.last for each in alone]))
    assert point.queries == sum(queries)


def test_a_budget_below_one_measurement_on_dev_examples_is_rejected(data: Path) -> None:
    with pytest.raises(InvalidInput, match="at least 30"):
        search([splits_of(data)], fake_ptm(), 29)
    assert len(search([splits_of(data)], fake_ptm(), 30)) == 1


@pytest.mark.parametrize("rounds", [1, 2, 5, 14, 201])
def test_checkpoints_cover_the_first_to_the_last_round(rounds: int) -> None:
    found = checkpoints(rounds)
    assert found[0] == 0 and found[-1] == rounds - 1
    assert len(found) <= CHECKPOINTS
    gaps = np.diff(found)
    assert (gaps > 0).all()
    assert rounds < 100 or gaps[0] < gaps[-1] / 10


def test_message_bytes_count_arrays_and_headers(data: Path) -> None:
    """Kills: arrays counted without their headers, tasks counted as updates."""
    played = next(iter(Simulation(splits_of(data), fake_ptm()).rounds()))
    arrays_down = sum(array.nbytes for task, _ in played.exchanges for array in task.arrays.values())
    arrays_up = sum(array.nbytes for _, update in played.exchanges for array in update.arrays.values())
    up, down = message_bytes(played.exchanges)
    clients = len(played.exchanges)
    assert arrays_up == clients * 6 * 4 and arrays_down == clients * 12 * 4
    assert 0 < down - arrays_down < 200 * clients
    assert 0 < up - arrays_up < 400 * clients
    assert message_bytes(played.exchanges[:1])[0] < up / 2


def test_costs_grow_with_rounds(data: Path) -> None:
    rounds = search([splits_of(data)], fake_ptm(), BUDGET)
    prompts = [each[0] for each in rounds]
    assert (prompts[0].answers, prompts[0].bytes_up, prompts[0].bytes_down) == (0, 0, 0)
    for name in ("queries", "answers", "bytes_up", "bytes_down"):
        assert (np.diff([getattr(prompt, name) for prompt in prompts]) > 0).all()
    assert prompts[-1].answers == 3 * (len(prompts) - 1)


def test_one_client_has_all_examples_that_are_pooled(data: Path) -> None:
    splits = splits_of(data)
    (whole,) = federations(splits, "pooled")
    assert whole.job.cohort.clients == 1
    assert whole.train[0].examples.texts == tuple(text for part in splits.train for text in part.examples.texts)
    assert whole.dev[0].examples.texts == tuple(text for part in splits.dev for text in part.examples.texts)
