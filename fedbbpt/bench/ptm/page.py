"""Figures as tables, and as a part of a page that people write around it."""

import platform
from collections.abc import Iterator, Sequence
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
    """All that is known of a run, for programs."""
    return {"command": command, **_circumstances(), "figures": [figure.record() for figure in figures]}


def _circumstances() -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {cpu_count()} cores",
        "software": f"Python {platform.python_version()}, torch {version('torch')}, grpcio {version('grpcio')}",
    }


def _processor() -> str:
    """By its name where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def write_into(page: Path, found: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Between its two marks. Raises InvalidInput."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(error), where=str(page), fix="a page in Markdown") from None
    before, first, rest = text.partition(FIRST_LINE)
    _, last, after = rest.partition(LAST_LINE)
    if not first or not last:
        raise InvalidInput("no place for the figures", where=str(page), fix=f"the lines {FIRST_LINE} and {LAST_LINE}")
    page.write_text(f"{before}{first}\n{_markdown(found, figures)}{last}{after}", encoding="utf-8")


def _markdown(found: dict[str, Any], figures: Sequence[Figure]) -> str:
    return "\n".join([*_lines(found, figures), ""])


def _lines(found: dict[str, Any], figures: Sequence[Figure]) -> Iterator[str]:
    yield from ("", f"{found['date']}, {found['machine']}; {found['software']}.", "")
    yield from ("```console", f"$ {found['command']}", "```", "")
    for part, some in groupby(figures, key=lambda figure: figure.part):
        yield from (f"### {part.capitalize()}", "", _row((part, *COLUMNS[1:])), "|---|" + "--:|" * 5)
        yield from (_row(figure.cells()) for figure in some)
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
