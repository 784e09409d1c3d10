"""`fedbbpt` commands run within the test's process, as a user types them."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

WORDS = {"billing": "invoice charge pay refund", "tests": "scan blood result lab", "visits": "parking hours entrance"}
JOB = """
[run]
rounds = 3
[ptm]
model = "fake"
[data]
source = "questions.csv"
shots_per_class = 8
[cohort]
clients = 2
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's exit code and everything that it printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """Standard error on one line, without the frame around it."""
        return re.sub(r"\s+", " ", self.err.replace("│", " "))


CommandLine: TypeAlias = Callable[..., Ended]


def run_command(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Runs `fedbbpt WORDS...` to its end."""
    from fedbbpt import cli  # takes a second, which only tests of commands should wait for

    monkeypatch.setattr(sys, "argv", ["fedbbpt", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return Ended(int(ended.value.code or 0), captured.out, captured.err)


def write_job(folder: Path) -> None:
    """Writes questions.csv, with eight questions for each word of three classes, and a job.toml that reads it."""
    rows = [f"question {i} on {word},{label}" for i in range(8) for label in WORDS for word in WORDS[label].split()]
    (folder / "questions.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "job.toml").write_text(JOB)
