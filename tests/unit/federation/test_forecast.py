"""The forecast of a run against what the finished simulation of the same run has used."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.api.ptm import open_ptm
from fedbbpt.errors import InvalidData
from fedbbpt.federation.comparison import cost
from fedbbpt.federation.forecast import Forecast, Rate, forecast, measured_rate, rate_of
from fedbbpt.federation.message_sizes import message_bytes
from fedbbpt.federation.rehearsal import RehearsalPtm
from fedbbpt.federation.run_folder import compared_data
from fedbbpt.federation.simulation import SimulatedRound, Simulation
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.methods import METHODS
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Budget, Output, Usage
from tests.command_line import CommandLine, write_job
from tests.tenants import ptm_of
from tests.tiny_run import fake_ptm, job, job_of_prefixes, job_of_words, secure


def changed(job: Job, **sections: dict[str, Any]) -> Job:
    """Returns the job with other values of some keys."""
    tables = job.model_dump(exclude_unset=True)
    return Job.model_validate({**tables, **{name: tables.get(name, {}) | keys for name, keys in sections.items()}})


def simulated(splits: Splits, ptm: Ptm) -> list[SimulatedRound]:
    return list(Simulation(splits, ptm).rounds())


def foreseen(splits: Splits, seconds: float = 60.0) -> Forecast:
    """Returns the forecast of a run. Its real model is asked nothing."""
    ptm = fake_ptm()
    stand_in = RehearsalPtm(ptm, splits)
    found = forecast(splits, stand_in, seconds=seconds)
    stand_in.release_all()
    assert ptm.usage() == Usage()
    assert ptm.engine._state(ptm.tenant).handles.bytes == 0, "the examples are taken back"
    return found


def check(found: Forecast, rounds: list[SimulatedRound]) -> None:
    """Compares a forecast of all rounds with a finished simulation."""
    assert found.counted and found.rehearsed == found.rounds == len(rounds)
    asked = [each.report.queries for each in rounds]
    assert found.queries == sum(asked) and found.queries_of_a_round == max(asked)
    by_client: Counter[str] = Counter()
    for each in rounds:
        by_client.update({task.id.client_id: update.measurement.queries for task, update in each.exchanges})
    assert found.queries_of_a_client == max(by_client.values())
    held: dict[str, bytes] = {}
    up = down = answers = 0
    for each in rounds:
        sent = message_bytes(each.exchanges, each.told, held)
        up, down, answers = up + sent[0], down + sent[1], answers + len(each.exchanges)
        held |= {task.id.client_id: each.told.after for task, _ in each.exchanges if each.told is not None}
    # Numbers travel as texts of varying length (varints), and codecs send what is not zero.
    assert found.bytes_up_per_client_round == pytest.approx(up / answers, rel=0.02)
    assert found.bytes_down_per_client_round == pytest.approx(down / answers, rel=0.02)


def of_method(name: str, data: Path) -> Job:
    return job(data, method=name)


WORDS = ("words", "some clients a round")
JOBS: dict[str, Callable[[Path], Job]] = {
    **{name: partial(of_method, name) for name, one in METHODS.items() if not one.white_box},
    "newton": lambda data: changed(job(data), method={"step": "newton", "population": 8}),
    "words": lambda data: job_of_words(job(data)),
    "some clients a round": lambda data: job_of_words(job(data), size=2),
    "a sample of the examples": lambda data: changed(job(data), method={"batch_examples": 3, "dev_every": 2}),
    "perturbed inputs": lambda data: changed(job(data, method="fed-bpt"), method={"perturb_rate": 0.5}),
    "few bytes": lambda data: job(data, method="fedavg-bbt", codec="int8"),
    "secure": lambda data: secure(job(data)),
}


@pytest.mark.parametrize("name", JOBS)
def test_queries_are_counted_before_anything_is_asked(data: Path, name: str) -> None:
    """Kills: a formula for the number of queries that a method has outgrown."""
    splits = prepare(JOBS[name](data))
    found, ptm = foreseen(splits), fake_ptm()
    check(found, simulated(splits, ptm))
    used = ptm.usage()
    # The scores decide which words a search tries again, and the tokens of words are estimated.
    assert found.cached_queries == pytest.approx(used.cached_queries, rel=0.3 if name in WORDS else 0)
    assert found.tokens == pytest.approx(used.tokens, rel=0.3 if name in WORDS else 0.1)
    assert found.queries_evaluation == cost(splits.job.space(), compared_data(splits))


@pytest.mark.slow
def test_clients_that_train_a_model_are_rehearsed_without_it(data: Path, checkpoint: Callable[[str], Path]) -> None:
    splits = prepare(job_of_prefixes(job(data, rounds=1, clients=1), checkpoint("llama")))
    with open_ptm(splits.job.ptm.model) as ptm:
        found = forecast(splits, RehearsalPtm(ptm, splits))
        rounds = simulated(splits, ptm)
    assert found.queries == sum(each.report.queries for each in rounds)
    up, down = (sum(sizes) for sizes in zip(*(message_bytes(each.exchanges) for each in rounds), strict=True))
    answers = sum(len(each.exchanges) for each in rounds)
    assert found.bytes_up_per_client_round == pytest.approx(up / answers, rel=0.02)
    assert found.bytes_down_per_client_round == pytest.approx(down / answers, rel=0.02)
    assert found.notes == ("the download of the auxiliary model, and the time that clients train it",)


def test_rounds_that_are_not_rehearsed_are_estimated(data: Path) -> None:
    splits = prepare(changed(job(data), run={"rounds": 40}))
    found, whole = foreseen(splits, seconds=0.0), foreseen(splits)
    assert (found.rehearsed, found.rounds, found.counted) == (2, 41, False)
    assert found.queries == pytest.approx(whole.queries, rel=0.05)
    assert found.tokens == pytest.approx(whole.tokens, rel=0.05)
    assert found.bytes_up_per_client == pytest.approx(whole.bytes_up_per_client, rel=0.3)


def test_a_search_in_turn_with_a_readout_is_an_estimate(data: Path) -> None:
    readout = {"readout": {"rounds": 3}}
    turns = changed(job(data), run={"rounds": 20}, task={"columns": ["how many", "where"]}, method=readout)
    splits = prepare(turns)
    found = foreseen(splits)
    assert found.precision == "about" and "readout" in found.depends
    begun = foreseen(splits, seconds=0.0)
    assert begun.precision == "at least" and begun.rehearsed == 2 and begun.queries <= found.queries
    assert found.queries == pytest.approx(sum(each.report.queries for each in simulated(splits, fake_ptm())), rel=0.7)


@pytest.mark.parametrize("output", list(Output))
def test_every_output_can_be_rehearsed(data: Path, output: Output) -> None:
    splits = prepare(job(data))
    ptm = ptm_of(Fake(), output=output)
    found = forecast(splits, RehearsalPtm(ptm, splits))
    assert found.queries == foreseen(splits).queries and ptm.usage().queries == 0


def test_an_agreement_that_the_run_would_break_is_refused(data: Path) -> None:
    """Kills: a plan that promises a run that cannot begin."""
    splits = prepare(job(data))
    ptm = ptm_of(Fake(), output=Output.LOSS_ONLY, min_examples=11)
    with pytest.raises(InvalidData, match="different ones"):
        forecast(splits, RehearsalPtm(ptm, splits))


def test_the_price_is_that_of_the_card(data: Path) -> None:
    splits = prepare(job(data))
    prices = {"micros_per_query": 7, "micros_per_cached_query": 2, "micros_per_thousand_tokens": 3000}
    found = forecast(splits, RehearsalPtm(ptm_of(Fake(), currency="EUR", **prices), splits))
    computed = found.queries - found.cached_queries + found.queries_evaluation
    tokens = found.tokens + found.tokens_evaluation
    assert found.cost_micros == 7 * computed + 2 * found.cached_queries + 3 * tokens
    assert found.record()["cost_micros"] == found.cost_micros
    assert foreseen(splits).record()["cost_micros"] is None


def test_a_forecast_beyond_the_budget_says_so(data: Path) -> None:
    splits = prepare(job(data))
    ptm = RehearsalPtm(fake_ptm(), splits)
    enough = forecast(splits, ptm)
    wanted = enough.queries + enough.queries_evaluation
    assert forecast(splits, ptm, left=Budget(queries=wanted)).warnings == ()
    (warning,) = forecast(splits, ptm, left=Budget(queries=wanted - 1)).warnings
    assert f"{wanted:,} queries, and {wanted - 1:,} are left" in warning and "ask the provider" in warning
    (warning,) = forecast(splits, ptm, left=Budget(tokens=10)).warnings
    assert "tokens, and 10 are left" in warning


def test_time_is_the_rate_of_the_model(data: Path) -> None:
    splits = prepare(job(data))
    found = forecast(splits, RehearsalPtm(fake_ptm(), splits), rate=Rate(10.0, "measured now"))
    assert found.seconds == (found.queries - found.cached_queries + found.queries_evaluation) / 10
    assert replace(found, rate=None).seconds is None and rate_of(Usage()) is None
    assert rate_of(Usage(queries=30, cached_queries=10, compute_seconds=2.0)) == Rate(
        10.0, "from what the service computed for this tenant before"
    )


def test_a_rate_is_measured_without_the_first_call(data: Path) -> None:
    """Kills: a rate that counts the time in which a model warms up."""
    times: Iterator[float] = iter([0.0, 100.0, 100.0, 100.5, 100.5, 102.0])  # calls of 4, 8 and 16 examples
    found = measured_rate(fake_ptm(), prepare(job(data)), lambda: next(times))
    assert found.queries_per_second == (8 + 16) / 2.0


def test_the_command_foresees_what_a_simulation_uses(command_line: CommandLine, tmp_path: Path) -> None:
    write_job(tmp_path)
    planned = json.loads(command_line("plan", "job.toml", "--json").out)
    summary = json.loads(command_line("simulate", "job.toml", "--out", "out", "--json").out)
    assert planned["counted"] and planned["queries"] == summary["queries"]
    assert planned["queries_evaluation"] == summary["queries_evaluation"]
    assert planned["price"] is None and planned["seconds"] > 0
    printed = command_line("plan", "job.toml").out
    assert f"queries of the clients              {summary['queries']:,}" in printed and "free" in printed
    assert all(len(line.rstrip()) <= 80 for line in printed.splitlines())
