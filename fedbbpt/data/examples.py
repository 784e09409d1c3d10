"""Labelled examples from a user's file: a text, an optional second text and a label in columns of any name, or images.

The names of the classes may come from the data, so reading takes two steps. First `read_table` reads and checks the
rows, and `label_names` returns the classes of all tables together. Then `label` turns a table into `LabelledExamples`.
If the classes are known, `read` takes both steps.
"""

import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.data import formats, images
from fedbbpt.data.columns import Columns, shown
from fedbbpt.errors import InvalidData
from fedbbpt.limits import MAX_CLASSES, MAX_DATA_CHARACTERS, MAX_DATA_ROWS
from fedbbpt.types import ExampleKind, Examples, LabelledExamples

SUFFIXES = (*formats.SUFFIXES, images.SUFFIX)
"""The endings of the file names that can be read."""

_FEW_ROWS = 20
"""Rows of a table that is too small to tell whether its labels are labels."""
_INDEX_DIGITS = 18
"""Most digits of a number; Python refuses to read one of thousands."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, checked."""

    where: str
    """Its place in the source, such as "trec.jsonl:17"."""
    text: str
    pair: str | None
    label: str
    """A name, or a number as text; empty if no labels are read."""
    group: str
    """Its client, in the same form as a label; empty if there are none."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a source, before their labels are numbered."""

    source: str
    examples: Examples
    labels: tuple[str, ...]
    """Each row's label: a name, or a number as text."""
    places: tuple[str, ...]
    """Each row's place in the source, such as "trec.jsonl:17"."""
    groups: tuple[str, ...] = ()
    """Each row's client, in the same form as a label; empty unless `Columns.group` names a column."""


def read(source: str | Path, labels: Sequence[str], columns: Columns | None = None) -> LabelledExamples:
    """Returns the examples of a source, with classes numbered as in `labels`. Raises InvalidData."""
    return label(read_table(source, columns), labels)


def read_table(source: str | Path, columns: Columns | None = None, more: Sequence[Path] = ()) -> Table:
    """Returns the rows of a source, which is a file or a dataset (see `data.formats`).

    Args:
        source: The source.
        columns: The columns to read.
        more: Further files, if `source` is the first of several parts.

    Raises:
        InvalidData: there are no rows or too many, a column is missing, a text is empty or too long, or a label or a
            client is neither a name nor a number. The error names the file and the line, and quotes no text.
    """
    columns = columns or Columns()
    if Path(source).name.endswith(images.SUFFIX):
        return _images(Path(source), columns)
    rows: list[Row] = []
    for part in (source, *more):
        for row in stream(formats.records(part, columns), columns):
            if len(rows) == MAX_DATA_ROWS:
                raise InvalidData("too many rows", where=row.where, fix=f"at most {MAX_DATA_ROWS} rows")
            if rows:
                _check_pair(rows[0].pair, row.pair, columns.pair, row.where)
            rows.append(row)
    if not rows:
        raise InvalidData("no examples", where=str(source), fix="at least one row")
    pairs = None if rows[0].pair is None else tuple(row.pair or "" for row in rows)
    groups = tuple(row.group for row in rows) if columns.group else ()
    examples = Examples(tuple(row.text for row in rows), pairs)
    return Table(str(source), examples, tuple(row.label for row in rows), tuple(row.where for row in rows), groups)


def stream(records: Iterator[formats.Record], columns: Columns) -> Iterator[Row]:
    """Yields each record as a checked row. Raises InvalidData as `read_table` does."""
    first: Row | None = None
    for where, record in records:
        columns.check(record, where)
        pair = record.get(columns.pair)
        row = Row(
            where,
            _text(record[columns.text], columns.text, where),
            None if pair is None else _text(pair, columns.pair, where),
            _name(record[columns.label], columns.label, "a class", where) if columns.label else "",
            _name(record[columns.group], columns.group, "a client", where) if columns.group else "",
        )
        first = first or row
        _check_pair(first.pair, row.pair, columns.pair, where)
        yield row


def _check_pair(first: str | None, pair: str | None, column: str, where: str) -> None:
    """Raises InvalidData if one of two rows has a second text and the other has none."""
    if (first is None) != (pair is None):
        said = "missing" if pair is None else "present"
        fix = "a second text in every row or in none"
        raise InvalidData(f"{column!r} is {said}, unlike in the rows above", where=where, fix=fix)


def _images(path: Path, columns: Columns) -> Table:
    if columns.group:
        raise InvalidData(
            f"no column {columns.group!r}", where=str(path), fix="another partition; an .npz file has only x and y"
        )
    pixels, labels = images.read_npz(path)
    if len(pixels) > MAX_DATA_ROWS:
        raise InvalidData("too many images", where=str(path), fix=f"at most {MAX_DATA_ROWS} images")
    places = tuple(f"{path.name}:{row}" for row in range(len(labels)))
    return Table(str(path), Examples(images=pixels), labels, places)


def label_names(*tables: Table) -> tuple[str, ...]:
    """Returns the labels that occur in the tables, sorted by `in_order`. Raises InvalidData if there are too many."""
    names = {name for table in tables for name in table.labels}
    if len(names) > MAX_CLASSES:
        raise InvalidData(
            f"{len(names)} different labels",
            where=tables[0].source,
            fix=f"at most {MAX_CLASSES}; is it the right column?",
        )
    rows = sum(len(table.labels) for table in tables)
    if rows >= _FEW_ROWS and len(names) > rows / 2:
        # Or else the texts of a wrong column would be shown as the names of classes.
        raise InvalidData(
            f"{len(names)} different labels in {rows} rows",
            where=tables[0].source,
            fix="several examples of each class; is it the right column? --label-column (in a job: data.label_column)",
        )
    return in_order(names)


def in_order(names: Set[str]) -> tuple[str, ...]:
    """Returns labels sorted: numerically if all are numbers, alphabetically otherwise."""
    return tuple(sorted(names, key=int) if all(map(_is_index, names)) else sorted(names))


def label(table: Table, labels: Sequence[str]) -> LabelledExamples:
    """Returns the examples of a table, with each label as its index in `labels`.

    A label that is a number is taken as an index, unless the names of the classes are numbers themselves.
    Raises InvalidData if a label is not among `labels`.
    """
    classes = {name: index for index, name in enumerate(labels)}
    if not any(map(_is_index, labels)):
        classes |= {str(index): index for index in range(len(labels))}
    for name, where in zip(table.labels, table.places, strict=True):
        if name not in classes:
            raise InvalidData(
                f"label {shown(name)} is not a class of the task",
                where=where,
                fix=f"one of {', '.join(map(repr, labels))}",
            )
    return LabelledExamples(table.examples, np.array([classes[name] for name in table.labels], np.int64))


def check_trainable(data: LabelledExamples, labels: Sequence[str], where: str) -> None:
    """Raises InvalidData if a classifier cannot be trained on the data: no examples, or all of one class."""
    present = np.unique(data.labels)
    if len(present) == 0:
        raise InvalidData("no examples", where=where, fix="examples of at least two classes")
    if len(present) == 1:
        raise InvalidData(
            f"all {len(data)} examples are of class {shown(labels[present[0]])}",
            where=where,
            fix="examples of at least two classes",
        )


def write(stem: Path, data: LabelledExamples, labels: Sequence[str]) -> Path:
    """Writes STEM.jsonl, or STEM.npz if the examples are images, in a form that `read` can read. Returns its path."""
    if data.examples.kind is ExampleKind.TEXTS:
        path = stem.with_name(f"{stem.name}.jsonl")
        write_jsonl(path, data, labels)
    else:
        path = stem.with_name(f"{stem.name}.{images.SUFFIX}")
        images.write_npz(path, data, labels)
    return path


def write_jsonl(path: Path, data: LabelledExamples, labels: Sequence[str]) -> None:
    """Writes one JSON object in each line, with the names of the labels, in a form that `read` can read."""
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
    if len(value) > MAX_DATA_CHARACTERS:
        raise InvalidData(f"{column!r} has {len(value)} characters", where=where, fix=f"at most {MAX_DATA_CHARACTERS}")
    _check_encodable(value, column, where)
    return value


def _check_encodable(value: str, column: str, where: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidData(
            f"{column!r} contains half of a surrogate pair", where=where, fix="text that can be encoded as UTF-8"
        )


def _name(value: Any, column: str, of: str, where: str) -> str:
    if isinstance(value, str) and value.strip():
        _check_encodable(value, column, where)
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    raise InvalidData(
        f"{column!r} is {_kind(value)}" + (" below 0, as in rows without a label" if _below_0(value) else ""),
        where=where,
        fix=f"the name of {of}, or its number counted from 0",
    )


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= _INDEX_DIGITS


def _below_0(value: Any) -> bool:
    return isinstance(value, int) and value < 0


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "empty"
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, float):
        return "a number with a decimal point"
    return "a number" if isinstance(value, int) else f"a {type(value).__name__}"
