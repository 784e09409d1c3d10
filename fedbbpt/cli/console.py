"""How every command talks: results to standard output (for people, or as JSON), everything else to standard error."""

import json
import logging
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from fedbbpt import errors
from fedbbpt.errors import FedbbptError

out = Console()
err = Console(stderr=True)

EXIT_CODES: dict[type[FedbbptError], int] = {
    errors.InvalidInput: 3,
    errors.Unavailable: 4,
    errors.DeadlineExceeded: 4,
    errors.Unauthenticated: 5,
    errors.InsecureAddress: 5,
    errors.StoreError: 6,
    errors.PortTaken: 7,
    errors.FedbbptError: 8,
}
"""1 is a bug, 2 a wrong command line, 130 Ctrl-C; docs/commands.md explains each."""


def exit_code(error: FedbbptError) -> int:
    return next(EXIT_CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in EXIT_CODES)


def show(result: dict[str, Any], as_json: bool, title: str = "") -> None:
    """A flat result: one JSON object, or a table of two columns."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    table = Table(title=title, show_header=False, title_justify="left")
    for key, value in result.items():
        table.add_row(key.replace("_", " "), _text(value))
    out.print(table)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "not counted" if value is None else str(value)


def fail(error: FedbbptError) -> int:
    """Says what was wrong, where, and what would be right; returns the exit code."""
    place = f"[dim]{error.where}[/dim] " if error.where else ""
    err.print(f"[bold red]{type(error).__name__}[/bold red] {place}", end="")
    err.print(error.what, markup=False, highlight=False)
    if error.fix:
        err.print("  what would be right: ", end="", style="dim")
        err.print(error.fix, markup=False, highlight=False)
    return exit_code(error)


def log_to_stderr(level: int) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
