"""Figures with what they hang on, for programs, and as a part of a page that people write around it."""

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


def record(figures: Sequence[Figure], command: str) -> dict[str, Any]:
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {cpu_count()} cores",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, grpcio {version('grpcio')}",
        "figures": [figure.record() for figure in figures],
    }


def _processor() -> str:
    """By its name where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


@dataclass(frozen=True, slots=True)
class Page:
    """A page in Markdown with two marks, between which the figures stand."""

    path: Path
    before: str
    after: str

    @classmethod
    def read(cls, path: Path) -> "Page":
        """Raises InvalidInput."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(str(error), where=str(path), fix="a page in Markdown") from None
        before, first, rest = text.partition(FIRST_LINE)
        _, last, after = rest.partition(LAST_LINE)
        if not first or not last:
            fix = f"the lines {FIRST_LINE} and {LAST_LINE}"
            raise InvalidInput("no place for the figures", where=str(path), fix=fix)
        return cls(path, before, after)

    def write(self, found: dict[str, Any], figures: Sequence[Figure]) -> None:
        lines = [FIRST_LINE, *_lines(found, figures), LAST_LINE]
        self.path.write_text(self.before + "\n".join(lines) + self.after, encoding="utf-8")


def _lines(found: dict[str, Any], figures: Sequence[Figure]) -> Iterator[str]:
    yield from ("", f"{found['date']}, {found['machine']}; {found['software']}.", "")
    yield from ("```console", f"$ {found['command']}", "```", "")
    for part, some in groupby(figures, key=lambda figure: figure.part):
        yield from (_row((part, *COLUMNS[1:])), "|---" + "|--:" * 4 + "|")
        yield from (_row(figure.cells()) for figure in some)
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
