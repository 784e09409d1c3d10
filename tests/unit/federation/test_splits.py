"""The data of a job: sources, splits, clients' shares, and jobs that do not fit their data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.data.ngrams import pmi_ngrams
from fedbbpt.errors import FedbbptError, InvalidData, InvalidJob
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.job.config import Job, parse_job
from fedbbpt.job.prompt_sections import TextPromptSection

CLASSES = ("billing", "visits")


def rows(name: str, each: int, classes: tuple[str, ...] = CLASSES) -> list[dict[str, str]]:
    return [{"text": f"{name} {i} of {label}", "label": label} for i in range(each) for label in classes]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        lines = [",".join(records[0]), *(",".join(record.values()) for record in records)]
    else:
        lines = [json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def job(source: Path | str, **sections: dict[str, Any]) -> Job:
    data = {"source": str(source), "shots_per_class": 4, "dev_shots_per_class": 2, **sections.pop("data", {})}
    return Job.model_validate({"data": data, "cohort": {"clients": 2}, **sections})


def texts(splits: Splits) -> list[str]:
    parts = [*splits.train, *splits.dev, splits.test]
    return [text for part in parts for text in part.examples.texts]


def refused(wanted: Job) -> FedbbptError:
    with pytest.raises(FedbbptError) as caught:
        prepare(wanted)
    return caught.value


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_file_is_split_without_using_an_example_twice(ending: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"questions.{ending}", rows("q", 10))
    splits = prepare(job(file))
    assert len(set(texts(splits))) == len(texts(splits))
    assert splits.histogram().sum(axis=0).tolist() == [4, 4]
    assert [len(part) for part in splits.dev] == [2, 2]
    assert np.bincount(splits.test.labels).tolist() == [2, 2]


def test_task_is_completed_from_the_data(tmp_path: Path) -> None:
    task = prepare(job(write(tmp_path / "q.csv", rows("q", 10)))).job.task
    assert (task.labels, task.classes, task.template) == (CLASSES, CLASSES, "{prompt} {text}")


def test_job_overrides_the_data(tmp_path: Path) -> None:
    own = {"labels": ("visits", "billing"), "classes": ("coming", "paying"), "template": "{text} {prompt}"}
    splits = prepare(job(write(tmp_path / "q.csv", rows("q", 10)), task=own))
    task = splits.job.task
    assert (task.labels, task.classes, task.template) == tuple(own.values())
    spoken = [task.labels[label] for label in splits.test.labels]
    assert all(text.endswith(label) for text, label in zip(splits.test.examples.texts, spoken, strict=True))


def test_template_has_a_place_for_pairs(tmp_path: Path) -> None:
    records = [{**record, "text_pair": "and so on"} for record in rows("q", 10)]
    splits = prepare(job(write(tmp_path / "q.jsonl", records)))
    assert splits.job.task.template == "{prompt} {text} {text_pair}"
    assert splits.pooled().examples.pairs == ("and so on",) * 8


def test_folder_has_its_own_splits(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.jsonl", rows(name, 6))
    splits = prepare(job(tmp_path))
    assert all(text.startswith("train") for part in splits.train for text in part.examples.texts)
    assert all(text.startswith("dev") for part in splits.dev for text in part.examples.texts)
    assert len(splits.test) == 12 and all(text.startswith("test") for text in splits.test.examples.texts)


def test_shares_depend_on_the_seed_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", rows("q", 30))
    first, again, other = (texts(prepare(job(file, run={"seed": seed}))) for seed in (0, 0, 1))
    assert first == again != other


def test_zero_shots_means_all(tmp_path: Path) -> None:
    splits = prepare(job(write(tmp_path / "q.csv", rows("q", 10)), data={"shots_per_class": 0}))
    assert splits.histogram().sum(axis=0).tolist() == [6, 6]


def test_demo_set_is_the_default_and_brings_its_task() -> None:
    splits = prepare(Job())
    assert len(splits.train) == 4
    assert splits.histogram().sum(axis=0).tolist() == [16] * len(splits.job.task.labels)
    assert len(set(splits.job.task.classes)) == len(splits.job.task.labels) >= 6


def test_preset_writes_out_its_labels() -> None:
    task = with_preset(Job.model_validate({"task": {"preset": "sst2"}})).task
    assert task.labels == ("negative", "positive")
    assert task.preset == ""


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(InvalidJob) as caught:
        with_preset(Job.model_validate({"task": {"preset": "imdb"}}))
    assert "sst2" in caught.value.fix


def test_labels_that_the_demo_set_lacks_are_rejected() -> None:
    error = refused(Job.model_validate({"task": {"preset": "trec"}}))
    assert isinstance(error, InvalidJob) and "contradict" in error.what


def test_too_few_examples_of_a_class_name_the_class_and_the_key(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", rows("q", 30) + rows("rare", 4, ("records",)))
    error = refused(job(file))
    assert isinstance(error, InvalidData) and error.where == str(file)
    assert error.what == "2 training examples of class 'records', 4 shots were asked for"
    assert error.fix.startswith("data.shots_per_class = 2")


@pytest.mark.parametrize("name", ["dev", "test"])
def test_split_without_examples_is_rejected(name: str, tmp_path: Path) -> None:
    for part, each in (("train", 6), ("dev", 6), ("test", 6), (name, 0)):
        write(tmp_path / f"{part}.jsonl", rows(part, each))
    assert isinstance(refused(job(tmp_path)), InvalidData)


def test_file_too_small_to_split_is_rejected(tmp_path: Path) -> None:
    assert "no dev examples" in refused(job(write(tmp_path / "q.csv", rows("q", 1)))).what


def test_data_of_a_single_class_are_rejected(tmp_path: Path) -> None:
    assert "of class 'visits'" in refused(job(write(tmp_path / "q.csv", rows("q", 9, ("visits",))))).what


def test_folder_without_a_split_names_the_missing_files(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows("q", 6))
    error = refused(job(tmp_path))
    assert error.what == "no dev split" and "dev.csv" in error.fix


def test_unknown_source_names_the_possible_ones(tmp_path: Path) -> None:
    error = refused(job(tmp_path / "questions"))
    assert isinstance(error, InvalidData)
    assert ".csv" in error.fix and "owner/name" in error.fix and "no such file" in error.what


def hospitals(each: int = 10, **sizes: int) -> list[dict[str, str]]:
    """Returns rows of the hospitals b, c and a in this order, with equally many of each class."""
    return [{**row, "hospital": name} for name in "bca" for row in rows(name, sizes.get(name, each))]


BY_HOSPITAL = {"partition": "column", "partition_column": "hospital", "shots_per_class": 0}


@pytest.mark.parametrize("folder", [False, True])
def test_each_value_of_the_partition_column_is_a_client(folder: bool, tmp_path: Path) -> None:
    source = write(tmp_path / "q.csv", hospitals())
    if folder:
        source = tmp_path
        (tmp_path / "q.csv").rename(tmp_path / "train.csv")
        for name in ("dev", "test"):
            write(tmp_path / f"{name}.csv", rows(name, 6))
    splits = prepare(job(source, data=BY_HOSPITAL, cohort={"clients": 3}))
    assert splits.titles == ("a", "b", "c")
    for title, part in zip(splits.titles, splits.train, strict=True):
        assert len(part) > 0 and all(text.startswith(title) for text in part.examples.texts)
    assert splits.histogram().sum() == (60 if folder else 36)


def test_partition_columns_that_do_not_fit_the_clients_are_rejected(tmp_path: Path) -> None:
    error = refused(job(write(tmp_path / "q.csv", hospitals()), data=BY_HOSPITAL))
    assert isinstance(error, InvalidJob) and "'hospital' has 3 values" in error.what
    assert error.fix.startswith("cohort.clients = 3, not 2")
    demo = Job.model_validate({"data": BY_HOSPITAL})
    assert "has no columns" in refused(demo).what


@pytest.mark.parametrize("value", [None, " ", 1.5, True, -1])
def test_row_without_a_partition_value_is_rejected_with_its_line(value: object, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"text": "one", "label": "visits", "hospital": "a"}]
    records.append({"text": "two", "label": "billing", "hospital": value})
    error = refused(job(write(tmp_path / "q.jsonl", records), data=BY_HOSPITAL))
    assert isinstance(error, InvalidData) and error.where == "q.jsonl:2"
    assert "'hospital' is" in error.what and "name of a client" in error.fix


def test_shots_that_leave_a_client_without_examples_are_rejected(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", hospitals(a=40, b=40, c=2))
    data = {**BY_HOSPITAL, "shots_per_class": 1}
    error = refused(job(file, data=data, cohort={"clients": 3}, run={"seed": 0}))
    assert isinstance(error, InvalidData) and "is left without examples" in error.what
    splits = prepare(job(file, data={**data, "shots": "client"}, cohort={"clients": 3}))
    np.testing.assert_array_equal(splits.histogram(), 1)


def test_shots_can_be_counted_at_each_client(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", rows("q", 100))
    data = {"shots": "client", "shots_per_class": 6, "dev_shots_per_class": 0}
    even = prepare(job(file, data={**data, "partition": "iid"}, cohort={"clients": 10}))
    np.testing.assert_array_equal(even.histogram(), 6)
    skewed = prepare(
        job(file, data={**data, "partition": "dirichlet", "alpha": 0.1}, cohort={"clients": 4})
    ).histogram()
    assert skewed.max() == 6 and skewed.min() == 0
    error = refused(job(file, data={**data, "partition": "iid"}, cohort={"clients": 11}))
    assert error.what == "60 training examples of class 'billing', 6 shots for each of 11 clients were asked for"
    assert error.fix.startswith("data.shots_per_class = 5")


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards"])
def test_server_has_a_share_of_its_own(partition: str, tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", rows("q", 50))
    data = {"shots_per_class": 20, "server_share": 0.25, "partition": partition}
    splits = prepare(job(file, data=data))
    assert np.bincount(splits.server.labels).tolist() == [5, 5]
    assert splits.histogram().sum(axis=0).tolist() == [15, 15]
    assert not set(splits.server.examples.texts) & set(texts(splits))
    alone = prepare(job(file, data={**data, "server_share": 0.0}))
    assert len(alone.server) == 0
    # The shots are the same whether or not the server has a share of them.
    assert {*splits.pooled().examples.texts, *splits.server.examples.texts} == {*alone.pooled().examples.texts}


def test_server_share_without_an_example_is_rejected(tmp_path: Path) -> None:
    error = refused(job(write(tmp_path / "q.csv", rows("q", 10)), data={"server_share": 0.01}))
    assert error.what == "data.server_share = 0.01 of 8 examples is nothing"


def test_fewer_dev_examples_than_clients_are_rejected(tmp_path: Path) -> None:
    error = refused(job(write(tmp_path / "q.csv", rows("q", 30)), cohort={"clients": 8}))
    assert error.what == "4 dev examples for 8 clients" and "0 for all" in error.fix


@pytest.mark.parametrize(
    "partition", [{"partition": "iid", "partition_column": "hospital"}, {"partition": "column"}], ids=str
)
def test_partition_column_and_partition_must_agree(partition: dict[str, str]) -> None:
    table = "\n".join(f'{key} = "{value}"' for key, value in partition.items())
    with pytest.raises(InvalidJob, match=r"data\.partition_column"):
        parse_job(f"[data]\n{table}\n")


TEXT: dict[str, dict[str, Any]] = {
    "task": {"prompt": {"kind": "text", "vocabulary": 3}},
    "method": {"name": "fed-bbpt", "generator": "categorical"},
}


def test_candidates_are_taken_from_the_servers_examples(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", rows("q", 20))
    splits = prepare(job(file, data={"shots_per_class": 8, "server_share": 0.5}, **TEXT))
    prompt = splits.job.task.prompt
    assert isinstance(prompt, TextPromptSection)
    assert prompt.candidates == pmi_ngrams(splits.server.examples.texts, 3) == ("of", "q", "billing")
    assert prepare(splits.job).job.task.prompt == prompt, "words that are named stay"


def test_candidates_must_be_listed_if_the_server_has_no_examples(tmp_path: Path) -> None:
    """Candidates taken from clients would disclose their words to the whole run."""
    error = refused(job(write(tmp_path / "q.jsonl", rows("q", 20)), **TEXT))
    assert isinstance(error, InvalidJob) and error.what == "task.prompt.candidates is empty"
    assert "data.server_share" in error.fix
