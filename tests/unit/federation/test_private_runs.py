"""Whole runs with a privacy budget, and an attack on their results: which examples were trained on?"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidJob
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import finish_run
from fedbbpt.federation.served_runs import open_run
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.criterion import cross_entropies
from fedbbpt.types import Examples, LabelledExamples, NewRun
from tests.tiny_run import CLIENTS, fake_ptm, job, write_data

ROUNDS = 3
RUNS, MEMBERS = 12, 12
"""Attacked runs, and the examples in and outside each of them."""


def job_of(data: Path, method: str, privacy: dict[str, Any], *, rounds: int = ROUNDS, **options: Any) -> Job:
    sections = job(data, rounds=rounds, method=method).model_dump()
    sections["method"] |= options
    if method == "fed-readout":
        sections["task"] |= {"columns": [f"word {number}" for number in range(60)], "views": ("",)}
        sections["method"] |= {"refit": False, "readout": {"ridges": [0.001], "rounds": 1000}}
    sections["privacy"] = privacy
    return Job.model_validate(sections)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("fed-cma", {"step": "ranks"}),
    ("fed-cma", {"step": "newton"}),
    ("fed-readout", {}),
]


@pytest.mark.parametrize("aggregation", ["plain", "secure"])
@pytest.mark.parametrize("level", ["client", "example"])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_a_run_spends_its_budget_and_is_not_reproducible(
    method: str, options: dict[str, Any], level: str, aggregation: str, tmp_path: Path
) -> None:
    """Kills: noise by the run's seed, and a result that does not say what it spent."""
    section = {"epsilon": 4.0, "level": level, "aggregation": aggregation}
    splits = prepare(job_of(write_data(tmp_path / "data"), method, section, **options))
    ends = []
    for _ in range(2):
        *_, last = Simulation(splits, fake_ptm()).rounds()
        ends.append(last.z)
    assert not np.array_equal(ends[0], ends[1])
    result, reports = simulate(splits, fake_ptm())
    spent = [report.epsilon for report in reports]
    assert spent == sorted(spent) and spent[-1] == pytest.approx(4.0, rel=1e-6) and spent[-1] <= 4.0  # type: ignore[type-var,operator]  # none is None
    finish_run(splits, fake_ptm(), result, reports, 1.0).write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())["privacy"]
    _, card = read_prompt(tmp_path / "prompt.safetensors")
    assert card.privacy is not None and json.loads(card.privacy.model_dump_json()) == summary
    assert (summary["level"], summary["epsilon"], summary["epsilon_limit"]) == (level, spent[-1], 4.0)
    assert any("dev examples" in omitted for omitted in summary["does_not_cover"])
    assert any("what the coordinator itself sees" in each for each in summary["does_not_cover"]) == (
        aggregation == "plain"
    )
    assert "Not covered: dev examples" in (tmp_path / "prompt.md").read_text()


def test_a_clip_norm_that_fixed_point_cannot_hold_leaves_no_database_behind(tmp_path: Path) -> None:
    """Kills: a refusal after the store was made, so that the corrected job needs another folder."""
    section = {"epsilon": 4.0, "aggregation": "secure", "clip_norm": 1e-5}
    splits = prepare(job_of(write_data(tmp_path / "data"), "fed-cma", section, step="ranks"))
    with pytest.raises(InvalidJob, match="is too small for 6 numbers of fixed point"):
        Simulation(splits, fake_ptm(), folder=tmp_path / "out")
    with pytest.raises(InvalidJob, match="is too small"):
        open_run(splits.job, tmp_path / "out/run.db", NewRun("tiny", ""))
    assert not list(tmp_path.glob("out/*"))


def random_examples(draw: np.random.Generator) -> LabelledExamples:
    """Returns texts whose labels nobody could guess, so that a low loss tells that a text was learned by heart."""
    texts = tuple(f"{draw.integers(10**9)} {draw.integers(10**9)}" for _ in range(MEMBERS))
    return LabelledExamples(Examples(texts), np.arange(MEMBERS) % 2)


def area(members: np.ndarray, others: np.ndarray) -> float:
    """Returns the area under the curve of an attack by a threshold on the loss."""
    below = (members[:, None] < others[None]).mean() + (members[:, None] == others[None]).mean() / 2
    return float(below)


def attack(splits: Splits, seed: int) -> float:
    """Returns how well the losses of the last prompt tell the examples of a run from others; 0.5 is by chance."""
    draw = np.random.default_rng(seed)
    inside, outside = random_examples(draw), random_examples(draw)
    rows = np.array_split(draw.permutation(MEMBERS), CLIENTS)
    shared = replace(splits, train=tuple(inside.take(part) for part in rows))
    *_, last = Simulation(shared, fake_ptm()).rounds()
    scorer = PromptScorer(fake_ptm(), task_spec(splits.job), splits.job.space())
    losses = [cross_entropies(scorer.scores(each, last.z[None]), each.labels)[0] for each in (inside, outside)]
    return area(*losses)


@pytest.mark.slow
def test_membership_shows_without_noise_and_not_with_it(tmp_path: Path) -> None:
    """Yeom et al., Privacy Risk in Machine Learning, 2018: a member of the training set has a lower loss.

    The mean of twelve attacks by chance has a standard deviation of 0.035, of which the second bound is 5.7.
    """
    data = write_data(tmp_path / "data")
    plain = prepare(job_of(data, "fed-readout", {}, rounds=30))
    noisy = prepare(job_of(data, "fed-readout", {"epsilon": 2.0, "level": "example"}, rounds=30))
    assert np.mean([attack(plain, seed) for seed in range(RUNS)]) > 0.7
    assert abs(np.mean([attack(noisy, seed) for seed in range(RUNS)]) - 0.5) < 0.2
