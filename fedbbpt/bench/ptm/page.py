"""Writes figures, with the machine and the versions they were measured on, as JSON and into a Markdown page."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import groupby
from os import cpu_count
from pathlib import Path
from typing import Any

from fedbbpt.bench.ptm.figures import COLUMNS, Figure
from fedbbpt.errors import InvalidInput

FIRST_LINE, LAST_LINE = "<!-- fedbbpt bench ptm -->", "<!-- end of fedbbpt bench ptm -->"
"""Marks in a page. The figures are written between them."""


def record(figures: Sequence[Figure], command: str) -> dict[str, Any]:
    """Returns the figures as JSON values, with the command, the date, the machine and the versions."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {cpu_count()} cores",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, grpcio {version('grpcio')}",
        "figures": [figure.record() for figure in figures],
    }


def _processor() -> str:
    """Returns the processor's name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown page with two marks between which the figures are written."""

    path: Path
    before: str
    after: str

    @classmethod
    def read(cls, path: Path) -> "Page":
        """Reads a page. Raises InvalidInput if it cannot be read or has no marks."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(str(error), where=str(path), fix="a readable Markdown page") from None
        before, first, rest = text.partition(FIRST_LINE)
        _, last, after = rest.partition(LAST_LINE)
        if not first or not last:
            fix = f"add the lines {FIRST_LINE} and {LAST_LINE}"
            raise InvalidInput("the page does not mark where the figures belong", where=str(path), fix=fix)
        return cls(path, before, after)

    def write(self, found: dict[str, Any], figures: Sequence[Figure]) -> None:
        """Replaces what stands between the marks by the figures and the `record` that describes them."""
        lines = [FIRST_LINE, *_lines(found, figures), LAST_LINE]
        self.path.write_text(self.before + "\n".join(lines) + self.after, encoding="utf-8")


def _lines(found: dict[str, Any], figures: Sequence[Figure]) -> Iterator[str]:
    yield from ("", f"{found['date']}, {found['machine']}; {found['software']}.", "")
    yield from ("```console", f"$ {found['command']}", "```", "")
    for part, some in groupby(figures, key=lambda figure: figure.part):
        yield from (_table_line((part, *COLUMNS[1:])), "|---" + "|--:" * 4 + "|")
        yield from (_table_line(figure.cells()) for figure in some)
        yield ""


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
