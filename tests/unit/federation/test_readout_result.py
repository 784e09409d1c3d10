"""The result of a run with a readout: its job, its file, its page, and what predictions with it cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.prediction import probabilities
from fedbbpt.federation.prompt_file import PromptCard, read_prompt, write_prompt
from fedbbpt.federation.run_folder import finish_run
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, parse_job
from fedbbpt.job.job_file import job_text
from fedbbpt.tasks.general_columns import GENERAL_PHRASES
from tests import tiny_run
from tests.tiny_run import fake_ptm, write_data


def read_out(folder: Path, method: str, **task: Any) -> Job:
    """Returns a tiny job with a readout over general columns, whose search takes a turn after two rounds."""
    sections = tiny_run.job(write_data(folder), method=method, rounds=8).model_dump()
    sections["task"] |= {"columns": "general", "views": [], **task}
    sections["method"]["readout"] |= {"rounds": 2, "every": 2}
    return Job.model_validate(sections)


def finished(job: Job, folder: Path) -> tuple[np.ndarray[Any, Any], PromptCard, float | None]:
    """Runs the job, and returns z, its card and the accuracy on the test examples."""
    ptm = fake_ptm()
    splits = prepare(job).completed_by(ptm)
    result, reports = simulate(splits, ptm, lambda status: None)
    found = finish_run(splits, ptm, result, reports, 1.0)
    found.write(folder)
    return *read_prompt(folder / "prompt.safetensors"), found.comparison.tuned.accuracy


@pytest.mark.parametrize(
    ("method", "views", "cost"), [("fed-readout", [""], 1), ("fed-readout", ["", "about"], 2), ("fed-cma", [""], None)]
)
def test_predictions_need_the_file_alone_and_a_query_for_each_view(
    tmp_path: Path, method: str, views: list[str], cost: int | None
) -> None:
    """Kills: a file without its columns or views; a readout that is read back under another prompt."""
    job = read_out(tmp_path / "data", method, views=views)
    z, card, accuracy = finished(job, tmp_path)
    test = prepare(job).test
    scorer = PromptScorer(fake_ptm(), card.task(), card.space)
    predicted = probabilities(scorer, z, test.examples).argmax(axis=1)
    assert (predicted == test.labels).mean() == pytest.approx(accuracy)
    asked = scorer.queries // len(test)
    assert asked == (cost or asked) and scorer.queries == asked * len(test)
    page = (tmp_path / "prompt.md").read_text()
    assert f"| a prediction | {asked} {'query' if asked == 1 else 'queries'} for each input |" in page
    assert "; ".join(GENERAL_PHRASES) in page


def test_a_file_whose_card_lacks_columns_is_refused(tmp_path: Path) -> None:
    """Kills: a readout that takes one text's scores for another's, without notice."""
    z, card, _ = finished(read_out(tmp_path / "data", "fed-readout", views=[""]), tmp_path)
    path = tmp_path / "prompt.safetensors"
    write_prompt(path, z.astype(np.float32), card.model_copy(update={"columns": card.columns[:-1]}))
    with pytest.raises(InvalidInput, match=r"texts for \d+ columns"):
        read_prompt(path)


def test_job_of_a_run_names_the_columns_that_were_chosen(tmp_path: Path) -> None:
    splits = prepare(read_out(tmp_path, "fed-readout")).completed_by(fake_ptm())
    written = parse_job(job_text(splits.job))
    assert written.columns() == GENERAL_PHRASES and written.task.views == ("",)


def test_page_names_the_columns_that_raise_each_class(tmp_path: Path) -> None:
    z, card, _ = finished(read_out(tmp_path / "data", "fed-readout"), tmp_path)
    readout = np.zeros((2, 1 + 2 + len(GENERAL_PHRASES)), np.float32)
    readout[0, 2 + 4], readout[0, 2 + 7], readout[1, 2 + 5] = 1.0, 2.0, 3.0
    write_prompt(tmp_path / "other.safetensors", readout.ravel(), card)
    page = (tmp_path / "other.md").read_text()
    assert f"(raised by: {GENERAL_PHRASES[7]}; {GENERAL_PHRASES[4]})" in page
    assert f"(raised by: {GENERAL_PHRASES[5]})" in page and z.shape == readout.ravel().shape
