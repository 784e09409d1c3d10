"""Inputs without labels, read in batches, and the file of their predictions, written as they come.

However long a file is, one batch of it is in memory.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.data import delimited, formats, text_file
from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import Row, stream
from fedbbpt.errors import InvalidData, InvalidInput
from fedbbpt.host.files import atomic_writer
from fedbbpt.host.json_text import json_text
from fedbbpt.types import Examples

OUTPUTS = ("csv", "jsonl")
"""Endings of a file of predictions."""


class InputFormat(StrEnum):
    """The format of inputs that come without a file name."""

    LINES = "lines"
    CSV = "csv"
    JSONL = "jsonl"


Named: TypeAlias = Sequence[Mapping[str, str]]
"""Inputs as a user knows them: their texts, or the places of images."""
Write: TypeAlias = Callable[[Named, npt.NDArray[np.float64]], None]
"""Writes inputs with the probabilities of their classes `[B, K]`."""


def file_rows(source: str, columns: Columns) -> Iterator[Row]:
    """Yields the rows of a source without their labels. Raises InvalidData as `data.examples.read_table` does."""
    unlabelled = replace(columns, label="")
    return stream(formats.records(source, unlabelled), unlabelled)


def stream_rows(file: io.BufferedReader, name: str, kind: InputFormat, columns: Columns) -> Iterator[Row]:
    """Yields the rows of an open file, such as standard input. Raises InvalidData as `file_rows` does."""
    unlabelled = replace(columns, label="")
    lines = text_file.decoded(file, name, columns.encoding)
    found: Iterable[formats.Record]
    match kind:
        case InputFormat.LINES:
            found = ((f"{name}:{number}", {columns.text: line.rstrip("\r\n")}) for number, line in lines)
        case InputFormat.CSV:
            found = delimited.rows(lines, name, unlabelled)
        case InputFormat.JSONL:
            found = formats.json_rows(lines, name)
    return stream(iter(found), unlabelled)


def batches(rows: Iterator[Row], size: int, name: str) -> Iterator[tuple[Examples, Named]]:
    """Yields up to `size` rows at a time, as examples for a model and as a user knows them.

    Raises InvalidData if there are no rows; `name` is that of their source.
    """
    first = next(rows, None)
    if first is None:
        raise InvalidData("no examples", where=name, fix="at least one row")
    rows = chain([first], rows)
    while batch := list(islice(rows, size)):
        texts = tuple(row.text for row in batch)
        pairs = tuple(row.pair for row in batch if row.pair is not None)
        yield Examples(texts, pairs or None), named_texts(texts, pairs)


def named_texts(texts: Sequence[str], pairs: Sequence[str] = ()) -> Named:
    """Returns texts, and their second texts if they have some, as a file of predictions names them."""
    if not pairs:
        return [{"text": text} for text in texts]
    return [{"text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]


@contextmanager
def prediction_file(path: Path, labels: Sequence[str], *, force: bool = False) -> Iterator[Write]:
    """Opens a file for predictions. It appears at `path` when the `with` block ends without an error.

    Each row has the input, its likeliest label, that label's probability, and the probability of every class.

    Args:
        path: The file, which ends in .csv or .jsonl.
        labels: The names of the K classes.
        force: Whether to replace an existing file.

    Raises:
        InvalidInput: The file exists already, or has another ending.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in OUTPUTS:
        raise InvalidInput("an unknown kind of file", where=f"--out {path}", fix=f"a name in .{' or .'.join(OUTPUTS)}")
    if path.exists() and not force:
        raise InvalidInput("the file exists already", where=str(path), fix="another --out, or --force")
    with atomic_writer(path) as file:
        text = codecs.getwriter("utf-8")(file)
        yield _csv_writer(text, labels) if ending == "csv" else _json_writer(text, labels)


def predicted(inputs: Named, likely: npt.NDArray[np.float64], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields each input with its likeliest label, that label's probability, and the probabilities `[B, K]` by label."""
    for one, row in zip(inputs, likely, strict=True):
        best = int(row.argmax())
        probabilities = dict(zip(labels, row.tolist(), strict=True))
        yield {**one, "label": labels[best], "probability": float(row[best]), "probabilities": probabilities}


def _json_writer(file: codecs.StreamWriter, labels: Sequence[str]) -> Write:
    def write(inputs: Named, likely: npt.NDArray[np.float64]) -> None:
        for one in predicted(inputs, likely, labels):
            file.write(json_text(one, ascii=False) + "\n")

    return write


def _csv_writer(file: codecs.StreamWriter, labels: Sequence[str]) -> Write:
    rows = csv.writer(file, lineterminator="\n")
    begun = False

    def write(inputs: Named, likely: npt.NDArray[np.float64]) -> None:
        nonlocal begun
        if not begun:
            rows.writerow([*inputs[0], "label", "probability", *(f"probability of {label}" for label in labels)])
            begun = True
        for one in predicted(inputs, likely, labels):
            numbers = [one.pop("probability"), *one.pop("probabilities").values()]
            rows.writerow([*one.values(), *(f"{number:.6g}" for number in numbers)])

    return write
