"""The live view of a run: a progress bar over the rounds, a table of the last rounds, a curve of the dev accuracy."""

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fedbbpt.cli.terminal.amounts import size
from fedbbpt.cli.terminal.progress import Lines
from fedbbpt.host.progress import show_progress
from fedbbpt.types import PrivacySpent, Report

_LAST = 8
"""Number of rounds in the table."""
_CURVE = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 50


class RunView:
    """Shows a run while it goes on. If the console is not a terminal, it prints one line per round instead.

    Args:
        rounds: the last round of the run, which only measures; rounds count from 0.
    """

    def __init__(self, console: Console, title: str, rounds: int) -> None:
        self._console, self._title = console, title
        self._reports: list[Report] = []
        self._note = "starting"
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("rounds", total=rounds + 1)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=False)

    def note(self, text: str) -> None:
        """Shows what is happening, in a few words."""
        if text != self._note and not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)
        self._note = text

    def say(self, text: str, style: str = "") -> None:
        """Prints a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)

    def add(self, reports: Sequence[Report]) -> None:
        """Shows further closed rounds."""
        for report in reports:
            self._reports.append(report)
            if not self._console.is_terminal:
                self._console.print(_line(report), highlight=False, soft_wrap=True)
        self._progress.update(self._bar, completed=len(self._reports))

    def __enter__(self) -> "RunView":
        if self._console.is_terminal:
            self._live.start()
            # A bar of its own would be a second live display.
            self._display = show_progress(Lines(self.note, silent_seconds=0.5, every_seconds=0.2))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            show_progress(self._display)
            self._live.stop()

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("round", "accuracy", "dev loss", "train loss", "clients", "queries", "up", "down", "s"):
            table.add_column(name, justify="right")
        measured = [report for report in self._reports if report.dev_loss is not None]
        best = max(measured, key=lambda report: report.rank, default=None)
        for report in self._reports[-_LAST:]:
            table.add_row(*_cells(report), style="bold green" if report is best else "")
        parts: list[RenderableType] = [Text(self._title, style="bold"), self._progress]
        if self._reports:
            parts.append(table)
        if known := [report.dev_accuracy for report in self._reports if report.dev_accuracy is not None]:
            parts.append(Text(f"dev accuracy {curve(known)}", style="cyan"))
        return Group(*parts, Text(self._note, style="dim"))


def curve(values: Sequence[float]) -> str:
    """Draws values as bars between their minimum and maximum, thinned to the width of a line."""
    step = max(1, -(-len(values) // _CURVE_WIDTH))
    shown = [max(values[i : i + step]) for i in range(0, len(values), step)]
    low, high = min(shown), max(shown)
    scale = (len(_CURVE) - 1) / (high - low) if high > low else 0.0
    return f"{low:.3f} " + "".join(_CURVE[round((value - low) * scale)] for value in shown) + f" {high:.3f}"


def decimals(value: float | None, places: int, unit: str = "") -> str:
    """Formats a number for people; "-" if it is unknown."""
    return "-" if value is None else f"{value:.{places}f}{unit}"


def privacy_line(spent: PrivacySpent) -> str:
    """Says what a run has spent of its privacy budget, and what the figure is about."""
    budget = spent.budget
    return (
        f"privacy: epsilon {spent.epsilon:.3g} of {budget.epsilon:g} spent, delta {budget.delta:g}, for each "
        f"{'client' if budget.level == 'client' else 'training example'}; "
        "dev figures and the choice of the best round are not covered"
    )


def _cells(report: Report) -> tuple[str, ...]:
    return (
        str(report.round),
        decimals(report.dev_accuracy, 3),
        decimals(report.dev_loss, 4),
        decimals(report.train_loss, 4),
        str(report.clients),
        f"{report.queries:,}",
        size(report.bytes_up),
        size(report.bytes_down),
        f"{report.seconds:.2f}",
    )


def _line(report: Report) -> str:
    round_, accuracy, loss, train, clients, queries, up, down, seconds = _cells(report)
    return (
        f"round {round_}: dev accuracy {accuracy}, dev loss {loss}, train loss {train}, {clients} clients, "
        f"{queries} queries, up {up}, down {down}, {seconds} s"
    )
