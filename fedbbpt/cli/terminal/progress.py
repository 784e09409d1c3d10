"""How commands show long work: bars on a terminal, else a line every few seconds, and log lines of long-running roles.

Everything goes to standard error, so `--json` is never disturbed.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from fedbbpt.cli.terminal.amounts import amounts
from fedbbpt.host.progress import Advance

log = logging.getLogger("fedbbpt")

SILENT_SECONDS = 3.0
"""How long work may take before a line is printed about it."""
LINE_SECONDS = 5.0
"""The time between two lines."""


class Lines:
    """Implements `host.progress.Display` by a line every few seconds, for work that takes long."""

    def __init__(
        self,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        silent_seconds: float = SILENT_SECONDS,
        every_seconds: float = LINE_SECONDS,
    ) -> None:
        """
        Args:
            say: Prints or logs a line.
            clock: Returns seconds, from any origin.
            silent_seconds: How long work may take before a line says so.
            every_seconds: The time between two lines.
        """
        self._say, self._clock = say, clock
        self._silent_seconds, self._every_seconds = silent_seconds, every_seconds

    @contextmanager
    def work(self, what: str, total: float | None, unit: str) -> Iterator[Advance]:
        """Prints nothing about work that is done soon."""
        started = self._clock()
        said_at, done = started + self._silent_seconds - self._every_seconds, 0.0

        def advance(amount: float) -> None:
            nonlocal said_at, done
            done += amount
            now = self._clock()
            if now - said_at >= self._every_seconds and done != total:
                said_at = now
                said = amounts(done, total, unit, now - started)
                self._say(f"{what}: {said}" if said else what)

        yield advance


class Bars:
    """Implements `host.progress.Display` by bars at the bottom of a terminal, which vanish with their work."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amounts]}", style="dim", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
        )
        self._open = 0

    @contextmanager
    def work(self, what: str, total: float | None, unit: str) -> Iterator[Advance]:
        """Shows a bar, or a spinner for work whose size is unknown."""
        task = self._begin(what, total, unit)
        started, done = self._clock(), 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            said = amounts(done, total, unit, self._clock() - started)
            self._progress.update(task, completed=done, amounts=said)

        try:
            yield advance
        finally:
            self._end(task)

    def _begin(self, what: str, total: float | None, unit: str) -> TaskID:
        if not self._open:
            self._progress.start()
        self._open += 1
        return self._progress.add_task(what, total=total, amounts=amounts(0, total, unit, 0.0))

    def _end(self, task: TaskID) -> None:
        self._progress.remove_task(task)
        self._open -= 1
        if not self._open:
            self._progress.stop()


def on_console(console: Console) -> Bars | Lines:
    """Returns the display of a command: bars on a terminal, otherwise lines."""
    if console.is_terminal:
        return Bars(console)
    return Lines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


def in_log() -> Lines:
    """Returns the display of a role that runs for long: lines in its log."""
    return Lines(log.info)
