"""The rows of a source as plain records, from JSONL, CSV, TSV (each also as .gz), Parquet or Hugging Face.

Errors of bytes and formats are an InvalidData that names the file and the line, and never quotes a row. The meaning of
the records is not checked here.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fedbbpt.data import delimited, hub, parquet, text_file
from fedbbpt.data.columns import Columns
from fedbbpt.errors import InvalidData, first_line

Record: TypeAlias = tuple[str, Mapping[str, Any]]
"""A record's place, such as "trec.jsonl:17", and its values by column."""


def records(source: str | Path, columns: Columns) -> Iterator[Record]:
    """Yields the records of a source. Raises InvalidData at the first one that cannot be read."""
    path = Path(source)
    ending = ending_of(path.name)
    if ending in _FORMATS:
        try:
            yield from _FORMATS[ending](path, columns)
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise InvalidData(f"cannot be read: {reason}", where=str(source)) from error
    elif ending in _OTHERS:
        kind, fix = _OTHERS[ending]
        raise InvalidData(f"{kind}, which is not read", where=str(source), fix=fix)
    elif hub.may_name_dataset(str(source)):
        yield from hub.rows(str(source), columns)
    else:
        raise _unknown(str(source))


def ending_of(name: str) -> str:
    """Returns the ending of a file's name, in lower case and without .gz."""
    return name.lower().removesuffix(".gz").rpartition(".")[2]


def json_rows(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Record]:
    """Yields the objects of the numbered lines of a JSONL file; `name` is its name in messages."""
    for number, line in lines:
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise InvalidData(f"not JSON ({error})", where=where, fix="one JSON object on each line") from None
        if not isinstance(value, dict):
            raise InvalidData(f"a JSON {type(value).__name__}", where=where, fix="one JSON object on each line")
        yield where, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of its names and values. Raises ValueError if a name stands twice, as no column of a CSV may."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _unknown(source: str) -> InvalidData:
    path = Path(source)
    known = f"a file that ends in .{', .'.join(_FORMATS)}"
    if path.is_dir():
        return InvalidData("a folder", where=source, fix=f"one file of it: {known}")
    if path.exists():
        return InvalidData("not a file of a known format", where=source, fix=known)
    what = "no such file, and not the name of a dataset"
    return InvalidData(what, where=source, fix=f"{known}, or a dataset as owner/name:config@split")


def _jsonl(path: Path, columns: Columns) -> Iterator[Record]:
    return json_rows(text_file.lines(path, columns.encoding), path.name)


def _csv(path: Path, columns: Columns) -> Iterator[Record]:
    return delimited.rows(text_file.lines(path, columns.encoding), path.name, columns)


def _tsv(path: Path, columns: Columns) -> Iterator[Record]:
    return delimited.rows(text_file.lines(path, columns.encoding), path.name, columns, tabs=True)


_FORMATS: Mapping[str, Callable[[Path, Columns], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _tsv,  # Excel's "Unicode text" is UTF-16 with tabs.
    "parquet": parquet.rows,
}

SUFFIXES = tuple(_FORMATS)
"""The endings of the file names that can be read; those of text formats may be followed by .gz."""

_SHEET = "save the sheet as CSV UTF-8 (.csv)"
_UNPACK = "unpack it and give the file inside"
_EXPORT = "export its rows as .csv or .jsonl"
_OTHERS = {
    **dict.fromkeys(("xlsx", "xlsm", "xlsb", "xls"), ("an Excel workbook", _SHEET)),
    "ods": ("a spreadsheet", _SHEET),
    "numbers": ("a spreadsheet", _SHEET),
    "json": ("a JSON document", "one JSON object on each line, in a file that ends in .jsonl"),
    **dict.fromkeys(("zip", "7z", "rar", "tar", "tgz", "bz2", "xz", "zst"), ("an archive", _UNPACK)),
    **dict.fromkeys(("pdf", "doc", "docx", "odt", "rtf", "html", "xml"), ("a document", _EXPORT)),
    **dict.fromkeys(("db", "sqlite", "sqlite3", "accdb", "mdb"), ("a database", _EXPORT)),
    **dict.fromkeys(("arrow", "feather", "orc", "avro"), ("a table of Arrow or Hadoop", "write it as .parquet")),
    **dict.fromkeys(("pkl", "pickle", "pt", "npy"), ("a file of Python objects", _EXPORT)),
}
"""Files that users have and that are not read, and what to do with them. They are no names of data sets either."""
