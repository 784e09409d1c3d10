"""The progress of long work: on terminals as bars, elsewhere as a line every few seconds, and never in a result."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from fedbbpt.cli.terminal.amounts import amounts
from fedbbpt.cli.terminal.progress import Bars, Lines, on_console
from fedbbpt.cli.terminal.run_view import RunView
from fedbbpt.host import progress as shown
from fedbbpt.host.progress import progress, shown_by
from tests.command_line import CommandLine, write_job


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "total", "unit", "seconds", "said"),
    [
        (0, 40, "clients", 0.0, "0 of 40 clients"),
        (300, 1200, "queries", 10.0, "300 of 1,200 queries, 30 a second, about 30 s left"),
        (3, 40, "cells", 600.0, "3 of 40 cells, one in 200 s, about 2.1 h left"),
        (5_000_000, 20_000_000, "bytes", 5.0, "5.0 MB of 20.0 MB, 1.0 MB a second, about 15 s left"),
        (70, None, "inputs", 7.0, "70 inputs, 10 a second"),
        (40, 40, "clients", 8.0, "40 of 40 clients, 5.0 a second"),
        (0, None, "", 3.0, ""),
    ],
)
def test_amounts_have_a_rate_and_the_time_that_is_left(
    done: float, total: float | None, unit: str, seconds: float, said: str
) -> None:
    assert amounts(done, total, unit, seconds) == said


def test_lines_come_at_most_every_few_seconds_and_only_of_long_work() -> None:
    clock, said = Clock(), list[str]()
    with Lines(said.append, clock).work("registering", 40, "clients") as advance:
        for _ in range(40):
            clock.now += 0.5
            advance(1)
    assert said == [
        "registering: 6 of 40 clients, 2.0 a second, about 17 s left",
        "registering: 16 of 40 clients, 2.0 a second, about 12 s left",
        "registering: 26 of 40 clients, 2.0 a second, about 7 s left",
        "registering: 36 of 40 clients, 2.0 a second, about 2 s left",
    ]
    with Lines(said.append, clock).work("short", 2, "clients") as advance:
        advance(1)
    assert len(said) == 4


def test_a_terminal_shows_bars_that_vanish_with_their_work() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    assert isinstance(on_console(console), Bars) and isinstance(on_console(Console(file=io.StringIO())), Lines)
    clock = Clock()
    bars = Bars(console, clock)
    with shown_by(bars), progress("asking [the] model", 10, "queries") as advance:
        clock.now += 2
        advance(4)
        with progress("loading", 3, "tensors") as load:
            load(1)
            first, second = bars._progress.tasks
            assert (first.completed, first.fields["amounts"]) == (4, "4 of 10 queries, 2.0 a second, about 3 s left")
            assert (second.description, second.fields["amounts"]) == ("loading", "1 of 3 tensors")
        bars._progress.refresh()
    assert bars._progress.tasks == [] and not bars._progress.live.is_started
    assert isinstance(console.file, io.StringIO)
    assert "asking [the] model" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def display() -> object:
    """What shows progress now."""
    return shown._display


def test_work_within_a_live_view_becomes_its_note() -> None:
    """Kills: a second live display, which tears the first one apart."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = Bars(console)
    with shown_by(bars):
        with RunView(console, "run", 3), progress("registering the examples", 4, "clients") as advance:
            advance(1)
            assert isinstance(display(), Lines) and bars._progress.tasks == []
        assert display() is bars
    with progress("nobody listens") as advance:
        advance(1)


def test_results_are_not_disturbed_by_progress(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All work is called long here. Standard output has the result alone."""

    def on_console(console: Console) -> Lines:
        return Lines(console.print, silent_seconds=0.0, every_seconds=0.0)

    monkeypatch.setattr("fedbbpt.cli.terminal.logs.on_console", on_console)
    write_job(tmp_path)
    ended = command_line("simulate", "job.toml", "--out", "out", "--json")
    assert ended.code == 0 and json.loads(ended.out)["tested"]
    assert "registering the examples: 1 of 2 clients" in ended.err
    assert "measuring on the test examples: " in ended.err
    asked = command_line("evaluate", "--prompt", "out/prompt.safetensors", "--data", "questions.csv", "--json")
    assert json.loads(asked.out)["examples"] == 88
