"""A Markdown page that a benchmark writes its figures into, and the machine that they were measured on."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from fedbbpt.errors import InvalidInput


def circumstances(command: str, *packages: str) -> dict[str, str]:
    """Returns the command, the date, the machine, and the versions of Python and of packages, as JSON values."""
    software = [f"Python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages)]
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{_processor()}, {cpu_count()} cores",
        "software": ", ".join(software),
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
    """A Markdown page with two marks between which the figures of one benchmark are written."""

    path: Path
    benchmark: str
    before: str
    after: str

    @classmethod
    def read(cls, path: Path, benchmark: str) -> "Page":
        """Reads a page. `benchmark` is its command. Raises InvalidInput if it cannot be read or has no marks."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(str(error), where=str(path), fix="a readable Markdown page") from None
        first_line, last_line = marks(benchmark)
        before, first, rest = text.partition(first_line)
        _, last, after = rest.partition(last_line)
        if not first or not last:
            fix = f"add the lines {first_line} and {last_line}"
            raise InvalidInput("the page does not mark where the figures belong", where=str(path), fix=fix)
        return cls(path, benchmark, before, after)

    def write(self, found: dict[str, str], tables: Sequence[str]) -> None:
        """Replaces what stands between the marks by the lines of the tables, below what `circumstances` returned."""
        first_line, last_line = marks(self.benchmark)
        lines = [first_line, "", f"{found['date']}, {found['machine']}; {found['software']}.", ""]
        lines += ["```console", f"$ {found['command']}", "```", "", *tables, last_line]
        self.path.write_text(self.before + "\n".join(lines) + self.after, encoding="utf-8")


def marks(benchmark: str) -> tuple[str, str]:
    """Returns the first and the last line of the part of a page that belongs to a benchmark."""
    return f"<!-- {benchmark} -->", f"<!-- end of {benchmark} -->"


def table_line(cells: Sequence[str]) -> str:
    """Returns a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
