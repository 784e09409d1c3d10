"""Rows of CSV and TSV files, as spreadsheets write them.

The delimiter is a comma, a semicolon (as Excel writes where the comma is the decimal sign) or a tab. It is found by
trying each of them: the right one yields the columns that are wanted, and as many fields in each row as in the header.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from fedbbpt.data.columns import Columns, folded, is_name
from fedbbpt.errors import InvalidData

DELIMITERS = (",", ";", "\t")
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
"""What a user may write for a delimiter that a shell or a TOML file makes hard to write."""

_SAMPLE_LINES = 1000
"""Lines that are looked at to find the delimiter, and whether there is a header."""

_USUAL = frozenset(
    "text texts label labels id idx index sentence question class category topic premise hypothesis title target "
    "pair query utterance intent sentiment content".split()
)
"""Words of column names that are hardly ever a whole cell of data."""

_MOST = 0.75
"""The share of a column's values that have to be longer than its first cell to show that this is a name."""

_MIN_CELL = 8
"""Characters of a cell below which no value counts as longer for its characters alone."""

_DECLARED = re.compile(r'"?sep=(.)"?[\r\n]*')
"""A first line by which a file tells Excel its delimiter."""


def rows(
    lines: Iterable[tuple[int, str]], name: str, columns: Columns, *, tabs: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each row's place, such as "trec.csv:17", and its values by column.

    Args:
        lines: The numbered lines of the file, with their line ends.
        name: The name of the file, for messages.
        columns: The columns that the file must have, and its delimiter, if the user names it.
        tabs: Whether to prefer tabs where the file does not tell.

    Raises:
        InvalidData: The file has no header or no such column, a row has another length than the header, or a quote is
            not closed. No message quotes a row.
    """
    stream = iter(lines)
    sample = list(islice(stream, _SAMPLE_LINES))
    delimiter = _given(columns.delimiter, name)
    if sample and (declared := _DECLARED.fullmatch(sample[0][1])):
        delimiter = delimiter or declared[1]
        sample = sample[1:]
    order = sorted(DELIMITERS, key=lambda each: (each == "\t") != tabs)
    delimiter = delimiter or max(order, key=lambda each: _fit(sample, each, columns))
    header: list[str] | None = None
    for place, fields in _records(chain(sample, stream), name, delimiter):
        if not any(field.strip() for field in fields):
            continue
        if header is None:
            header = [field.strip() for field in fields]
            if not set(columns.options()) <= set(header):
                _check_header(header, list(_sampled(sample, delimiter))[1:], columns, place)
            columns.check(header, place)
        elif len(fields) != len(header):
            fix = (
                f'"quotes" around a field that contains {_spelt(delimiter)}; or another --delimiter, if it is not that'
            )
            what = f"{len(fields)} fields where the header has {len(header)}"
            raise InvalidData(what, where=place, fix=f"{fix} (in a job: data.delimiter)")
        else:
            yield place, dict(zip(header, fields, strict=True))


def _given(delimiter: str, name: str) -> str:
    found = _NAMES.get(delimiter, delimiter)
    if len(found) > 1 or found in ("\r", "\n", '"'):
        fix = "one character, or tab: --delimiter (in a job: data.delimiter)"
        raise InvalidData(f"the delimiter {delimiter!r}", where=name, fix=fix)
    return found


def _records(lines: Iterable[tuple[int, str]], name: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Each row with its place. A quoted field may span several lines; the row is named by its first line."""
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        before = last
        try:
            fields = next(reader, None)
        except csv.Error as error:
            what, fix = _explained(error)
            raise InvalidData(what, where=f"{name}:{before + 1}", fix=fix) from None
        if fields is None:
            return
        yield f"{name}:{before + 1}", fields


def _explained(error: csv.Error) -> tuple[str, str]:
    """What a user has to know of an error of the reader, and the fix."""
    said = str(error)
    if "unexpected end of data" in said:
        return "a quote is opened here and never closed", 'close every "quoted" field'
    if "field limit" in said:
        return (
            f"a field has more than {csv.field_size_limit()} characters",
            'shorter fields; close every "quoted" field',
        )
    if "expected after" in said:
        return "a character follows the quote that closes a field", 'write a quote inside a "quoted" field twice: ""'
    return said, 'close every "quoted" field'


def _sampled(sample: Iterable[tuple[int, str]], delimiter: str) -> Iterator[list[str]]:
    """The rows of a sample that are not blank, up to the first one that cannot be read."""
    try:
        for _, fields in _records(sample, "", delimiter):
            if any(field.strip() for field in fields):
                yield fields
    except InvalidData:
        return


def _fit(sample: list[tuple[int, str]], delimiter: str, columns: Columns) -> tuple[int, float, int]:
    """How well a delimiter fits: the wanted columns in the header, the share of rows as long as it, and its length."""
    found = list(_sampled(sample, delimiter))
    if not found:
        return 0, 0.0, 0
    header, *others = found
    wanted = len(set(columns.names()) & {field.strip() for field in header})
    even = sum(len(fields) == len(header) for fields in others) / len(others) if others else 1.0
    return wanted, even if len(header) > 1 or wanted else 0.0, len(header)


def _check_header(header: list[str], others: list[list[str]], columns: Columns, place: str) -> None:
    """Raises InvalidData unless the first row, which lacks a wanted column, is clearly a header: no cell is shown then.

    It is data if a cell is no name (long, a sentence, a number), or stands again below, as a label does. Short cells
    may be either.
    """
    below = [[fields[index].strip() for fields in others if index < len(fields)] for index in range(len(header))]
    if all(is_name(cell) and cell not in seen for cell, seen in zip(header, below, strict=True) if cell):
        if _has_usual_name(header, columns) or any(map(_is_short_above, header, below)):
            return
        missing, setting = next((name, how) for name, how in columns.options().items() if name not in header)
        count = "1 column, which is not" if len(header) == 1 else f"{len(header)} columns, none of which is"
        what = f"the file has {count} called {missing!r}"
        fix = f"a first row with the names of the columns; if it has one, {setting}"
    else:
        wanted = " and ".join(map(repr, columns.options()))
        what = f"the file has no header row: its first row, columns 1 to {len(header)}, looks like data"
        fix = f"a first row with the names of the columns, among them {wanted}"
    if len(header) == 1:
        fix += "; or --delimiter (in a job: data.delimiter), if the columns are separated in another way"
    raise InvalidData(what, where=place, fix=fix)


def _has_usual_name(header: list[str], columns: Columns) -> bool:
    """Says whether a cell is a wanted column, perhaps in another case, or consists of usual words: "Question_1"."""
    wanted = set(map(folded, columns.names()))
    words = [re.findall(r"[^\W\d_]+", folded(cell)) for cell in header]
    return any(folded(cell) in wanted for cell in header) or any(found and _USUAL.issuperset(found) for found in words)


def _is_short_above(cell: str, below: list[str]) -> bool:
    """Says whether most values below a cell are texts that are clearly longer, so that the cell names their column."""
    values = [value for value in below if value]
    longer = [
        len(value.split()) > 2 * len(cell.split()) or len(value) > 3 * max(len(cell), _MIN_CELL) for value in values
    ]
    return bool(cell and values) and sum(longer) >= _MOST * len(longer)


def _spelt(delimiter: str) -> str:
    return {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(delimiter, repr(delimiter))
