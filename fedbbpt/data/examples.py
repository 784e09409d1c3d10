"""Labelled examples from anybody's file: {"text", "text_pair"?, "label"} under whatever column names, or images.

Reading takes two steps, because the names of the classes may come from the data: `read_table` checks each row for
itself, `label_names` says which classes the tables speak of, and `label` turns a table into `LabelledExamples`.
`read` takes both steps where the classes are known.
"""

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.data import formats, images
from fedbbpt.data.formats import records
from fedbbpt.errors import InvalidData
from fedbbpt.types import Examples, LabelledExamples

MAX_ROWS = 1_000_000
MAX_CHARACTERS = 100_000
"""Of one text."""
MAX_CLASSES = 1000
SUFFIXES = (*formats.SUFFIXES, images.SUFFIX)
"""Of files."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read. Without a column of that name there are no pairs; an empty `owner` reads none."""

    text: str = "text"
    pair: str = "text_pair"
    label: str = "label"
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they were read: a label is a name or a number as text, and `places` says where its row stands.

    An owner is read as a label is: whose row it is, where `Columns.owner` names a column that says so; else empty.
    """

    source: str
    examples: Examples
    labels: tuple[str, ...]
    places: tuple[str, ...]
    owners: tuple[str, ...] = ()


def read(source: str | Path, labels: Sequence[str], columns: Columns | None = None) -> LabelledExamples:
    """The examples of a source, with classes numbered as in `labels`. Raises InvalidData."""
    return label(read_table(source, columns), labels)


def read_table(source: str | Path, columns: Columns | None = None) -> Table:
    """The rows of a source (see `formats`).

    Raises InvalidData with file and line: no rows or too many, a column that is not there, an empty or overlong text, a
    label or an owner that is neither name nor number.
    """
    columns = columns or Columns()
    if Path(source).name.endswith(images.SUFFIX):
        return _images(Path(source), columns)
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    owners: list[str] = []
    paired: bool | None = None
    for where, record in records(source):
        if len(texts) == MAX_ROWS:
            raise InvalidData("too many rows", where=where, fix=f"at most {MAX_ROWS}")
        for column in (columns.text, columns.label, columns.owner):
            if column and column not in record:
                raise InvalidData(
                    f"no column {column!r}", where=where, fix=f"name one of those there: {', '.join(map(repr, record))}"
                )
        has_pair = record.get(columns.pair) is not None
        if paired not in (None, has_pair):
            raise InvalidData(
                f"{columns.pair!r} is {'here' if has_pair else 'missing'}, unlike in the rows before",
                where=where,
                fix="a second text in every row or in none",
            )
        paired = has_pair
        texts.append(_text(record[columns.text], columns.text, where))
        if has_pair:
            pairs.append(_text(record[columns.pair], columns.pair, where))
        labels.append(_name(record[columns.label], columns.label, "a class", where))
        if columns.owner:
            owners.append(_name(record[columns.owner], columns.owner, "an owner", where))
        places.append(where)
    if not texts:
        raise InvalidData("no examples", where=str(source), fix="at least one row")
    examples = Examples(tuple(texts), tuple(pairs) if pairs else None)
    return Table(str(source), examples, tuple(labels), tuple(places), tuple(owners))


def _images(path: Path, columns: Columns) -> Table:
    if columns.owner:
        raise InvalidData(f"no column {columns.owner!r}", where=str(path), fix="another partition; here are x and y")
    pixels, labels = images.read_npz(path)
    if len(pixels) > MAX_ROWS:
        raise InvalidData("too many rows", where=str(path), fix=f"at most {MAX_ROWS}")
    places = tuple(f"{path.name}:{row}" for row in range(len(labels)))
    return Table(str(path), Examples(images=pixels), labels, places)


def label_names(*tables: Table) -> tuple[str, ...]:
    """The classes that the tables speak of, in order."""
    names = {name for table in tables for name in table.labels}
    if len(names) > MAX_CLASSES:
        raise InvalidData(
            f"{len(names)} different labels",
            where=tables[0].source,
            fix=f"at most {MAX_CLASSES}; is it the right column?",
        )
    return in_order(names)


def in_order(names: Set[str]) -> tuple[str, ...]:
    """Numbers in order of size; names, or both, in that of the alphabet."""
    return tuple(sorted(names, key=int) if all(map(_is_index, names)) else sorted(names))


def label(table: Table, labels: Sequence[str]) -> LabelledExamples:
    """The table with each label as its place in `labels`: found by name; or a number already, where no name is one."""
    classes = {name: index for index, name in enumerate(labels)}
    if not any(map(_is_index, labels)):
        classes |= {str(index): index for index in range(len(labels))}
    for name, where in zip(table.labels, table.places, strict=True):
        if name not in classes:
            raise InvalidData(
                f"label {name!r} is outside the task", where=where, fix=f"one of {', '.join(map(repr, labels))}"
            )
    return LabelledExamples(table.examples, np.array([classes[name] for name in table.labels], np.int64))


def check_trainable(data: LabelledExamples, labels: Sequence[str], where: str) -> None:
    """Raises InvalidData where there is nothing to tell apart: no examples, or all of one class."""
    present = np.unique(data.labels)
    if len(present) == 0:
        raise InvalidData("no examples", where=where, fix="examples of at least two classes")
    if len(present) == 1:
        raise InvalidData(
            f"all {len(data)} examples are of class {labels[present[0]]!r}",
            where=where,
            fix="examples of at least two classes",
        )


def write(stem: Path, data: LabelledExamples, labels: Sequence[str]) -> Path:
    """The file, STEM.jsonl, or STEM.npz where the examples are images: what `read` takes back."""
    if data.examples.images is None:
        path = stem.with_name(f"{stem.name}.jsonl")
        write_jsonl(path, data, labels)
    else:
        path = stem.with_name(f"{stem.name}.{images.SUFFIX}")
        images.write_npz(path, data, labels)
    return path


def write_jsonl(path: Path, data: LabelledExamples, labels: Sequence[str]) -> None:
    """One JSON object a line, labels by name: what `read` takes back."""
    texts, pairs = data.examples.texts, data.examples.pairs
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row, index in enumerate(data.labels):
            pair = {} if pairs is None else {"text_pair": pairs[row]}
            line = {"text": texts[row], **pair, "label": labels[index]}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidData(f"{column!r} is {_kind(value)}", where=where, fix="a text")
    if not value.strip():
        raise InvalidData(f"{column!r} is empty", where=where, fix="write a text, or leave the row out")
    if len(value) > MAX_CHARACTERS:
        raise InvalidData(f"{column!r} has {len(value)} characters", where=where, fix=f"at most {MAX_CHARACTERS}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidData(f"{column!r} holds half a surrogate pair", where=where, fix="text that UTF-8 can write")
    return value


def _name(value: Any, column: str, of: str, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    raise InvalidData(
        f"{column!r} is {_kind(value)}", where=where, fix=f"the name of {of}, or its number counted from 0"
    )


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "empty"
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"
