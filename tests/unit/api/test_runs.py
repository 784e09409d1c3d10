"""A federation from Python: simulated round by round, and its prompt used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedbbpt
from fedbbpt.errors import InvalidInput, InvalidJob, NoResultYet, PluginMissing
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.ptm.models.fake import Fake
from tests.tiny_run import write_data

SEARCH = {"name": "fed-cma", "population": 6}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    source = write_data(tmp_path_factory.mktemp("data"))
    return {
        "run": {"rounds": 3},
        "ptm": {"model": "fake"},
        "task": {"prompt": {"tokens": 4, "dim": 6}},
        "data": {"source": str(source), "shots_per_class": 0, "dev_shots_per_class": 0, "partition": "iid"},
        "cohort": {"clients": 3},
        "method": SEARCH,
    }


def test_a_loop_over_rounds_can_be_left_and_continued(tables: dict[str, Any]) -> None:
    job = fedbbpt.make_job(tables)
    with fedbbpt.simulate(job) as run:
        with pytest.raises(NoResultYet):
            run.result()
        for report in run:
            if report.round == 1:
                break
        assert [report.round for report in run.reports] == [0, 1]
        assert [report.round for report in run] == [2, 3]
    with fedbbpt.open_ptm("fake") as ptm:
        result, reports = simulate(prepare(job), ptm)
    np.testing.assert_array_equal(run.result().z, result.z)
    assert [report.dev_loss for report in run.reports] == [report.dev_loss for report in reports]


def test_a_prompt_is_saved_loaded_and_used(tables: dict[str, Any], tmp_path: Path) -> None:
    run = fedbbpt.simulate(fedbbpt.make_job(tables))
    finished = run.finish()
    prompt = run.prompt()
    prompt.save(tmp_path / "prompt.safetensors")
    loaded = fedbbpt.load_prompt(tmp_path / "prompt.safetensors")
    np.testing.assert_array_equal(loaded.z, run.result().z)
    assert loaded.card == prompt.card == finished.card()
    assert loaded.card.queries == sum(report.queries for report in run.reports)
    assert loaded.evaluate(run.splits.test) == finished.comparison.tuned
    assert loaded.evaluate(f"{tables['data']['source']}/test.jsonl") == finished.comparison.tuned
    renamed = (Path(tables["data"]["source"]) / "test.jsonl").read_text().replace('"text":', '"question":')
    (tmp_path / "renamed.jsonl").write_text(renamed)
    columns = fedbbpt.Columns(text="question")
    assert loaded.evaluate(tmp_path / "renamed.jsonl", columns=columns) == finished.comparison.tuned
    texts = list(run.splits.test.examples.texts)
    predicted = [loaded.card.labels.index(found.label) for found in loaded.predict(texts)]
    accuracy = float(np.mean(np.array(predicted) == run.splits.test.labels))
    assert accuracy == finished.comparison.tuned.accuracy
    assert all(0.5 <= found.probability <= 1 for found in loaded.predict(texts))
    for found in loaded.predict(texts):
        assert sum(found.probabilities) == pytest.approx(1)
        assert loaded.card.labels[int(np.argmax(found.probabilities))] == found.label
    measured = loaded.evaluate(run.splits.test)
    assert measured.confusion is not None and measured.interval is not None
    assert np.trace(measured.confusion) == round(accuracy * len(texts)) and measured.confusion.sum() == len(texts)
    assert measured.interval[0] < accuracy < measured.interval[1]


def test_jobs_from_a_file_a_text_and_a_dictionary_are_the_same(tmp_path: Path) -> None:
    text = '[run]\nrounds = 7\n[task.prompt]\nkind = "text"\nwords = 3\n[method]\n'
    text += 'name = "fed-bbpt"\ngenerator = "categorical"\n'
    path = tmp_path / "job.toml"
    path.write_text(text)
    method = {"name": "fed-bbpt", "generator": "categorical"}
    made = fedbbpt.make_job({"run": {"rounds": 7}, "task": {"prompt": {"kind": "text", "words": 3}}, "method": method})
    assert made == fedbbpt.parse_job(text) == fedbbpt.load_job(path) == fedbbpt.load_job(str(path))


def test_a_wrong_key_of_a_dictionary_is_explained() -> None:
    with pytest.raises(InvalidJob, match=r"unknown key 'run.round'; did you mean 'rounds'"):
        fedbbpt.make_job({"run": {"round": 3}})


def test_ask_scores_texts_with_a_ptm() -> None:
    classes = ["how many numbers", "which place"]
    with fedbbpt.open_ptm("fake") as ptm, fedbbpt.open_ptm(Fake()) as same:
        scores = fedbbpt.ask(ptm, ["how many", "which place"], classes, prompt="about")
        np.testing.assert_array_equal(scores, fedbbpt.ask(same, ["how many", "which place"], classes, prompt="about"))
        assert not np.array_equal(scores, fedbbpt.ask(ptm, ["how many", "which place"], classes))
    assert scores.argmax(axis=1).tolist() == [0, 1]


def test_one_text_in_place_of_a_list_is_refused(tables: dict[str, Any]) -> None:
    with fedbbpt.open_ptm("fake") as ptm:
        with pytest.raises(InvalidInput, match=r"texts: one text in place of a list; a list, as in \[text\]"):
            fedbbpt.ask(ptm, "where", ["a", "b"])
        with pytest.raises(InvalidInput, match="classes: one text in place of a list"):
            fedbbpt.ask(ptm, ["where"], "ab")
    with fedbbpt.simulate(fedbbpt.make_job(tables)) as run:
        for _ in run:
            pass
        with pytest.raises(InvalidInput, match="inputs: one text in place of a list"):
            run.prompt().predict("where")


def test_path_in_place_of_a_job_is_refused() -> None:
    path: Any = "job.toml"
    with pytest.raises(InvalidInput, match=r"simulate: 'job.toml' is not a job; load_job\(path\)"):
        fedbbpt.simulate(path)


def test_model_with_the_prefix_of_a_missing_plugin_is_refused() -> None:
    with (
        pytest.raises(PluginMissing, match="word-count:v1: no installed plug-in loads models"),
        fedbbpt.open_ptm("word-count:v1"),
    ):
        pass


def test_finished_run_is_written_to_a_folder_named_by_a_string(tables: dict[str, Any], tmp_path: Path) -> None:
    with fedbbpt.simulate(fedbbpt.make_job(tables)) as run:
        run.finish().write(str(tmp_path))
    assert fedbbpt.load_prompt(str(tmp_path / "prompt.safetensors")).card == run.prompt().card
