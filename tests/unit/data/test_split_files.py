"""The files of a folder's splits, under all names that they have in practice."""

from pathlib import Path

import pytest

from fedbbpt.data.split_files import split_files
from fedbbpt.errors import InvalidData


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize("name", ["dev", "validation", "valid", "val"])
def test_the_dev_split_has_several_names(name: str, tmp_path: Path) -> None:
    make(tmp_path, f"{name}.csv", "train.csv", "notes.csv", "dev.bak.csv", f"{name}-notes.csv")
    assert [path.name for path in split_files(tmp_path, "dev")] == [f"{name}.csv"]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    names = [f"train-0000{index}-of-00003.parquet" for index in range(3)]
    make(tmp_path, *reversed(names))
    assert [path.name for path in split_files(tmp_path, "train")] == names


def test_a_data_set_of_the_hub_has_its_files_in_a_subfolder(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "data/test-00000-of-00001.parquet")
    assert [path.name for path in split_files(tmp_path, "test")] == ["test-00000-of-00001.parquet"]


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(InvalidData, match="the train split has 3 shards, of which number 00001 is missing"):
        split_files(tmp_path, "train")


@pytest.mark.parametrize(
    "names",
    [
        ("dev.csv", "validation.csv"),
        ("dev.csv", "dev.jsonl.gz"),
        ("dev.parquet", "dev-00000-of-00001.parquet"),
        ("dev-00000-of-00001.parquet", "dev-00000-of-00002.parquet"),
    ],
)
def test_two_versions_of_a_split_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"two versions of the dev split: .* and .*; remove one of them"):
        split_files(make(tmp_path, *names), "dev")


def test_a_missing_split_names_the_files_that_it_could_be(tmp_path: Path) -> None:
    make(tmp_path, "dev.xlsx")
    with pytest.raises(InvalidData) as caught:
        split_files(tmp_path, "dev")
    assert caught.value.what == "no dev split" and "dev.csv" in caught.value.fix
    assert "validation.*" in caught.value.fix
