"""The rows of a source as plain records, from JSONL, CSV, TSV (each also as .gz), Parquet or Hugging Face.

A source is a file, or a Hugging Face dataset as `owner/name[:config][@split]` (by default the split train). Errors of
bytes and formats are an InvalidData that names the file and the line. The meaning of the records is not checked here.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fedbbpt.errors import InvalidData, first_line
from fedbbpt.host.extras import needs_extra
from fedbbpt.limits import MAX_LINE_BYTES

Record: TypeAlias = tuple[str, Mapping[str, Any]]
"""A record's place, such as "trec.jsonl:17", and its values by column."""

_DATASET = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.\[\]:%-]+))?")


def records(source: str | Path) -> Iterator[Record]:
    """Yields the records of a source. Raises InvalidData at the first one that cannot be read."""
    path = Path(source)
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if suffix in _FORMATS:
        try:
            yield from _FORMATS[suffix](path)
        except (OSError, EOFError, zlib.error) as error:
            # gzip raises each of the three for a broken file.
            reason = getattr(error, "strerror", None) or first_line(error)
            raise InvalidData(f"cannot be read: {reason}", where=str(source)) from error
    elif not path.exists() and (named := _DATASET.fullmatch(str(source))):
        yield from _huggingface(str(source), named["name"], named["config"], named["split"] or "train")
    else:
        raise InvalidData(
            "neither a file of a known format nor the name of a dataset",
            where=str(source),
            fix=f"a file that ends in .{', .'.join(_FORMATS)}, or a dataset as owner/name:config@split",
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields numbered lines with their line ends; a byte order mark is removed."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path.name}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise InvalidData("the line is too long", where=where, fix=f"at most {MAX_LINE_BYTES} bytes")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidData(
                    f"byte {error.object[error.start]:#04x} at column {error.start + 1} is not UTF-8",
                    where=where,
                    fix="save the file as UTF-8",
                ) from None
            yield number, text


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidData(f"not JSON ({error})", where=where, fix="one JSON object on each line") from None
        if not isinstance(value, dict):
            raise InvalidData(f"a JSON {type(value).__name__}", where=where, fix="one JSON object on each line")
        yield where, value


def _separated(delimiter: str) -> Callable[[Path], Iterator[Record]]:
    def rows(path: Path) -> Iterator[Record]:
        reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        first = 1
        try:
            for fields in reader:
                # A quoted field may span several lines; the row is named by its first line.
                where, first = f"{path.name}:{first}", reader.line_num + 1
                if not fields:
                    continue
                if header is None:
                    header = [name.strip() for name in fields]
                elif len(fields) != len(header):
                    raise InvalidData(
                        f"{len(fields)} fields where the header has {len(header)}",
                        where=where,
                        fix='"quotes" around a field that contains the delimiter',
                    )
                else:
                    yield where, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise InvalidData(str(error), where=f"{path.name}:{first}", fix='close every "quoted" field') from None

    return rows


def _parquet(path: Path) -> Iterator[Record]:
    with needs_extra("data", where=path.name):
        import pyarrow  # slow to import
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", record
    except pyarrow.ArrowException as error:
        raise InvalidData(f"not readable as Parquet: {first_line(error)}", where=str(path)) from None


def _huggingface(source: str, name: str, config: str | None, split: str) -> Iterator[Record]:
    with needs_extra("data", where=source):
        import datasets  # slow to import
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # The hub's client raises the errors of many libraries, and documents none.
        raise InvalidData(
            f"no such file, and no such dataset on the hub: {first_line(error)}",
            where=source,
            fix="an existing file, or owner/name:config@split with a connection to the hub",
        ) from error
    names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")}
    for number, record in enumerate(dataset, start=1):
        # If the dataset names its classes, each label is given by its name.
        named_labels = {
            column: known[record[column]]
            for column, known in names.items()
            if isinstance(record[column], int) and 0 <= record[column] < len(known)
        }
        yield f"{source}:{number}", {**record, **named_labels}


_FORMATS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "parquet": _parquet,
}

SUFFIXES = tuple(_FORMATS)
"""The endings of the file names that can be read; those of text formats may be followed by .gz."""
