"""The columns of a source: which ones to read, and what to say if one is missing.

Messages name columns, but never show the content of a row: a file without a header has a private text in its place.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedbbpt.errors import InvalidData

TEXT_PAIR = "text_pair"
"""The column of second texts, unless the user names another one. It may be missing."""

_NAME = re.compile(r"(?=.*[^\W\d])[\w .,:;/#()\[\]+&'-]{1,40}")
_NAME_WORDS = 4
_NAMES_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a source, and how a file of text separates and encodes them."""

    text: str = "text"
    pair: str = TEXT_PAIR
    """The column of second texts. A source without it has no second texts, unless the name is not the usual one."""
    label: str = "label"
    """The column of labels; empty if none are read."""
    group: str = ""
    """The column that names the client of each row; empty if there is none."""
    delimiter: str = ""
    """The character between the columns of a CSV or TSV file; empty to find it in the file."""
    encoding: str = ""
    """The encoding of a file of text; empty for UTF-8, or for what the file's byte order mark says."""

    def options(self) -> dict[str, str]:
        """Returns the columns that a source must have, each with the setting that names another one."""
        settings = {
            self.text: "--text-column NAME (in a job: data.text_column)",
            self.label: "--label-column NAME (in a job: data.label_column)",
            self.group: "data.partition_column in the job",
        }
        if self.pair != TEXT_PAIR:
            settings[self.pair] = "--pair-column NAME (in a job: data.pair_column)"
        return {name: setting for name, setting in settings.items() if name}

    def names(self) -> list[str]:
        """Returns the names of all columns that are read."""
        return list(dict.fromkeys([*self.options(), self.pair]))

    def check(self, names: Iterable[str], where: str) -> None:
        """Raises InvalidData unless each column that a source must have is among `names`, once."""
        found = list(names)
        for column, setting in self.options().items():
            if column not in found:
                fix = f"{setting}, where NAME is one of the columns: {listed(found)}"
                alike = [name for name in found if folded(name) == folded(column)]
                if alike:
                    fix = f"the column {alike[0]!r} differs from it only in case or spaces: {fix}"
                raise InvalidData(f"no column {column!r}", where=where, fix=fix)
        for column in self.names():
            if found.count(column) > 1:
                what = f"{found.count(column)} columns are called {column!r}"
                raise InvalidData(what, where=where, fix="a different name for each column")


def folded(name: str) -> str:
    """Returns a name of a column without differences of case and of spaces around it."""
    return name.strip().casefold()


def is_name(cell: str) -> bool:
    """Says whether a cell looks like the name of a column, rather than like a text or a number."""
    return _NAME.fullmatch(cell.strip()) is not None and len(cell.split()) <= _NAME_WORDS


def listed(names: Sequence[str]) -> str:
    """Returns the names of columns for a message, without those that could be somebody's text."""
    shown = [repr(name) for name in names if is_name(name)][:_NAMES_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown + ([f"and {more} more" if shown else f"{more}, whose names look like data"] if more else []))


def shown(value: str) -> str:
    """Returns a label for a message, or only its length if it is so long that it could be somebody's text."""
    return repr(value) if is_name(value) or value.isdigit() else f"of {len(value)} characters"
