"""Parquet files as `datasets`, pandas and Arrow write them: labels by number, by name, and with names in the schema."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import label_names, read, read_table
from fedbbpt.errors import InvalidData

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = ["where can I park", "who pays", "may I come in", "why this sum"]
NAMES = ["visits", "billing"]


def write(path: Path, text: Any, label: Any) -> Path:
    parquet.write_table(pyarrow.table({"text": text, "label": label}), path)
    return path


def test_numbers_are_indices_of_the_tasks_classes(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.parquet", TEXTS, [0, 1, 0, 1]), NAMES)
    assert data.examples.texts == tuple(TEXTS)
    np.testing.assert_array_equal(data.labels, [0, 1, 0, 1])


def test_class_names_in_the_schema_are_the_labels(tmp_path: Path) -> None:
    """As on the hub: without them, texts would be compared with the words "0" and "1"."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    table = pyarrow.table({"text": TEXTS, "label": [0, 1, 0, 1]}, schema=features.arrow_schema)
    parquet.write_table(table, tmp_path / "train.parquet")
    assert read_table(tmp_path / "train.parquet").labels == ("visits", "billing", "visits", "billing")


def categories() -> Any:
    return pytest.importorskip("pandas").Categorical(["visits", "billing", "visits", "billing"])


COLUMNS: dict[str, Any] = {
    "strings": lambda: ["visits", "billing", "visits", "billing"],
    "large strings": lambda: pyarrow.array(["visits", "billing", "visits", "billing"], pyarrow.large_string()),
    "a dictionary": lambda: pyarrow.array(["visits", "billing", "visits", "billing"]).dictionary_encode(),
    "pandas categories": lambda: pyarrow.array(categories(), from_pandas=True),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_names_are_read_from_every_type_of_column(kind: str, tmp_path: Path) -> None:
    texts = pyarrow.array(TEXTS, pyarrow.large_string()) if kind == "large strings" else TEXTS
    table = read_table(write(tmp_path / "a.parquet", texts, COLUMNS[kind]()))
    assert table.examples.texts == tuple(TEXTS)
    assert label_names(table) == ("billing", "visits") and table.labels[0] == "visits"


@pytest.mark.parametrize("metadata", [b"not JSON", b"[]", b'{"info": {"features": {"label": 3}}}'])
def test_metadata_of_another_program_is_ignored(metadata: bytes, tmp_path: Path) -> None:
    table = pyarrow.table({"text": TEXTS, "label": [0, 1, 0, 1]}).replace_schema_metadata({b"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").labels == ("0", "1", "0", "1")


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"a\.parquet:2: 'label' is a number below 0, as in rows without a label"):
        read_table(write(tmp_path / "a.parquet", TEXTS, [0, -1, 0, 1]))


def test_a_missing_column_names_those_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"no column 'premise'; --text-column NAME .*: 'text', 'label'"):
        read_table(write(tmp_path / "a.parquet", TEXTS, [0, 1, 0, 1]), Columns(text="premise"))


def not_utf8() -> Any:
    starts, text = np.array([0, 3, 4, 5, 6], np.int32).tobytes(), b"ab\xffcde"
    return pyarrow.StringArray.from_buffers(4, pyarrow.py_buffer(starts), pyarrow.py_buffer(text))


def far_dates() -> Any:
    return pyarrow.array([2**30, 0, 1, 2], pyarrow.date32())


@pytest.mark.parametrize("column", [not_utf8, far_dates])
def test_values_that_python_cannot_represent_are_refused(column: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"a\.parquet: not readable as Parquet"):
        read_table(write(tmp_path / "a.parquet", TEXTS, column()))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"no such thing")
    with pytest.raises(InvalidData, match="not readable as Parquet"):
        read_table(tmp_path / "b.parquet")
