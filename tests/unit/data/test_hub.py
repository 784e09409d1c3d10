"""Names of data sets are sent to the hub; paths never leave this machine."""

from pathlib import Path

import pytest

from fedbbpt.data.hub import may_name_dataset

NAMES = [
    "imdb",
    "owner/name",
    "owner/name:config@validation",
    "owner/the-set-v1.1",
    "owner/name:20231101.en@train[:10%]",
]
PATHS = [
    "./name",
    "../name",
    "/srv/name",
    "~/name",
    "a/b/c",
    "patients.xlsx",
    "owner/notes.txt",
    "owner\\name",
    "here/x",
]


@pytest.mark.parametrize("source", NAMES)
def test_names_of_data_sets(source: str) -> None:
    assert may_name_dataset(source)


@pytest.mark.parametrize("source", PATHS)
def test_paths(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    assert not may_name_dataset(source)
