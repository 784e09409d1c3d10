"""Output of every command: results to standard output, for people or as JSON; everything else to standard error."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.host.json_text import json_text
from fedbbpt.host.printable import printable

if TYPE_CHECKING:
    from fedbbpt.data.quality import DataWarning


class _SafeConsole(Console):
    """A console that escapes control characters in whatever is printed. Only rich itself sends any to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the pieces of what is printed, as it is shown."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)


# Texts, labels and names come from other people, so brackets and colons in them must not be read as markup.
out = _SafeConsole(markup=False, emoji=False)
err = _SafeConsole(stderr=True, markup=False, emoji=False)

EXIT_CODES: dict[type[FedbbptError], int] = {
    errors.InvalidInput: 3,
    errors.StoreReplaced: 6,
    errors.Unavailable: 4,
    errors.DeadlineExceeded: 4,
    errors.Unauthenticated: 5,
    errors.InsecureAddress: 5,
    errors.StoreError: 6,
    errors.PortTaken: 7,
    errors.FedbbptError: 8,
}
"""Exit codes of typed errors. 1 is a bug, 2 a wrong command line, 130 Ctrl-C; docs/commands.md explains each."""


def exit_code(error: FedbbptError) -> int:
    """Returns the exit code for an error: that of its nearest ancestor in `EXIT_CODES`."""
    return next(EXIT_CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in EXIT_CODES)


def show(result: dict[str, Any], as_json: bool, title: str = "") -> None:
    """Prints a result as one JSON object, or as a table of two columns; a nested dict gets indented rows."""
    if as_json:
        sys.stdout.write(json_text(result) + "\n")
        return
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for key, value in result.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            table.add_row(name)
            for part, number in value.items():
                table.add_row(f"  {part}", _text(number))
        else:
            table.add_row(name, _text(value))
    out.print(table)


def warned(warnings: "Sequence[DataWarning]") -> "Sequence[DataWarning]":
    """Prints warnings about a user's data to standard error, one on each line, and returns them."""
    for warning in warnings:
        err.print(Text.assemble(("warning: ", "bold yellow"), warning.message), soft_wrap=True)
    return warnings


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "not counted" if value is None else str(value)


def fail(error: FedbbptError) -> int:
    """Prints what was wrong, where, and what would be right; returns the exit code."""
    place = f"{error.where}: " if error.where else ""
    err.print(Text.assemble((f"{type(error).__name__}: ", "bold red"), (place, "bold"), error.what), soft_wrap=True)
    if error.fix:
        err.print(Text.assemble(("  hint: ", "dim"), error.fix), soft_wrap=True)
    return exit_code(error)
