"""The folder of a run: its files, the keys of its summary, and the bytes of a client in a round."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.data.quality import DataWarning
from fedbbpt.errors import StoreMismatch
from fedbbpt.federation.comparison import Comparison
from fedbbpt.federation.evaluation import Answers, Measured
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import (
    ANSWERS,
    METRICS,
    PROMPT,
    SUMMARY,
    FinishedRun,
    prepare_folder,
    prompt_card,
    with_precision,
    with_recorded_precision,
)
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.intervals import accuracy_interval, difference_interval
from fedbbpt.types import PtmIdentity, Report, Result

JOB = Job.model_validate(
    {
        "run": {"rounds": 1, "seed": 5},
        "data": {"source": "/somewhere/questions.csv"},
        "task": {"labels": ("visits", "billing"), "template": "{prompt} {text}", "prompt": {"dim": 3}},
        "cohort": {"clients": 2},
    }
)
FIRST = Report(0, 2, 0.7, 0.5, 0.65, queries=100, seconds=1.0, bytes_up=1000, bytes_down=3000)
LAST = Report(1, 1, 0.6, 0.75, None, queries=10, seconds=0.5, bytes_up=200, bytes_down=600)
LABELS = np.arange(8) % 2


def right(count: int, loss: float) -> Measured:
    """The measurement of a prompt that answers the first `count` of 8 examples right."""
    predicted = np.where(np.arange(8) < count, LABELS, 1 - LABELS)
    return Measured(count / 8, loss, 8, Answers(LABELS, predicted, 2))


COMPARISON = Comparison(
    without=right(2, 1.5), offsets=right(5, 1.0), start=right(4, 1.25), tuned=right(6, 0.5), queries=128
)
WARNING = DataWarning("conflicting labels", 2, "2 examples")


def outcome(*reports: Report) -> FinishedRun:
    result = Result(np.array([1.0, 2.0, 3.0], np.float32), LAST)
    return FinishedRun(JOB, Fake().describe(), 8, result, reports, COMPARISON, 12.34567, (WARNING,))


def gain(only_result: int) -> dict[str, object]:
    return {
        "difference": only_result / 8,
        "interval_95": list(difference_interval(only_result, 0, 8)),
        "examples": 8,
        "only_result_right": only_result,
        "only_other_right": 0,
    }


def test_summary_has_the_documented_keys() -> None:
    assert outcome(FIRST, LAST).summary() == {
        "tested": True,
        "method": "fed-cma",
        "ptm": "fake",
        "ptm_revision": "fake-2",
        "task": "questions.csv",
        "test_digest": "",
        "seed": 5,
        "rounds": 1,
        "best_round": 1,
        "clients": 2,
        "examples": 8,
        "accuracy_before": 0.25,
        "accuracy_bias_only": 0.625,
        "accuracy_readout_only": None,
        "accuracy_start": 0.5,
        "accuracy_prompt_only": None,
        "accuracy_after": 0.75,
        "test_examples": 8,
        "intervals_95": {
            "no_prompt": list(accuracy_interval(2, 8)),
            "start": list(accuracy_interval(4, 8)),
            "offsets": list(accuracy_interval(5, 8)),
            "result": list(accuracy_interval(6, 8)),
        },
        "gains": {name: gain(only) for name, only in {"no_prompt": 4, "start": 2, "offsets": 1}.items()},
        "loss_before": 1.5,
        "loss_after": 0.5,
        "dev_accuracy": 0.75,
        "queries": 110,
        "queries_evaluation": 128,
        "bytes_up_per_client_round": 400,
        "bytes_down_per_client_round": 1200,
        "seconds": 12.346,
        "warnings": [{"kind": "conflicting labels", "count": 2, "message": "2 examples"}],
    }


def test_bytes_are_unknown_if_a_round_did_not_count_them() -> None:
    uncounted = Report(1, 2, 0.6, 0.75, None, queries=10, seconds=0.5)
    summary = outcome(FIRST, uncounted).summary()
    assert summary["bytes_up_per_client_round"] is None
    assert summary["bytes_down_per_client_round"] is None


def test_files_are_read_back(tmp_path: Path) -> None:
    made = outcome(FIRST, LAST)
    made.write(tmp_path)
    assert json.loads((tmp_path / SUMMARY).read_text()) == made.summary()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [Report(**line) for line in lines] == [FIRST, LAST]
    answers = [json.loads(line) for line in (tmp_path / ANSWERS).read_text().splitlines()]
    assert answers[0] == dict.fromkeys(("label", "no_prompt", "start", "offsets", "result"), "visits")
    assert answers[4] == {name: "billing" if name in ("no_prompt", "start") else "visits" for name in answers[4]}
    for name, accuracy in (("no_prompt", 2 / 8), ("result", 6 / 8)):
        assert sum(answer[name] == answer["label"] for answer in answers) / 8 == accuracy
    z, card = read_prompt(tmp_path / PROMPT)
    assert z.tolist() == [1.0, 2.0, 3.0]
    assert (card.best_round, card.queries, card.dev_accuracy, card.classes) == (1, 110, 0.75, ("visits", "billing"))
    assert card.space == JOB.space()


def test_prepare_folder_accepts_an_unfinished_run_but_no_finished_one(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    prepare_folder(out)
    (out / "run.db").write_bytes(b"kept")
    prepare_folder(out)
    assert (out / "run.db").read_bytes() == b"kept"
    (out / SUMMARY).write_text("{}")
    with pytest.raises(StoreMismatch, match="finished run"):
        prepare_folder(out)


def test_an_unfinished_run_keeps_the_precision_that_it_was_started_with(tmp_path: Path) -> None:
    """Kills: a resumed run whose scores come from another precision."""
    assert with_recorded_precision(JOB, tmp_path) is JOB, "a new run has none"
    (tmp_path / "job.toml").write_text(job_text(with_precision(JOB, "bfloat16")))
    assert with_recorded_precision(JOB, tmp_path).ptm.precision == "bfloat16"
    pinned = with_precision(JOB, "float32")
    assert with_recorded_precision(pinned, tmp_path) is pinned, "what the user asks for is not replaced"


def test_the_precision_of_a_running_service_is_not_a_jobs(tmp_path: Path) -> None:
    remote = JOB.model_copy(update={"ptm": JOB.ptm.model_copy(update={"address": "127.0.0.1:7001"})})
    assert with_precision(remote, "bfloat16") is remote and with_precision(JOB, "") is JOB


def test_a_prompts_card_says_how_to_load_its_model() -> None:
    ptm = JOB.ptm.model_copy(update={"max_length": 64, "family": "causal-lm"})
    result = Result(np.zeros(3, np.float32), LAST)
    card = prompt_card(JOB.model_copy(update={"ptm": ptm}), PtmIdentity("fake", "r1", "bfloat16"), 8, result, 10)
    assert card.model_options() == {"family": "causal-lm", "precision": "bfloat16", "max_length": 64}
    plain = prompt_card(JOB, PtmIdentity("fake", "r1", "int8"), 8, result, 10)
    assert plain.model_options() == {"family": "", "precision": "auto", "max_length": 0}
    assert "ptm_family" not in plain.model_dump_json(), "cards of earlier prompts keep their bytes"
