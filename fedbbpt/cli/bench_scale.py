"""`fedbbpt bench scale`: measures a coordinator with thousands of connected clients."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.rounds.scale import Scale, measure
from fedbbpt.bench.rounds.zero_compute import METHODS
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out
from fedbbpt.errors import InvalidInput
from fedbbpt.host.json_text import json_text


def scale(
    clients: Annotated[int, typer.Option(min=1, max=10_000, help="The number of connected clients.")] = 5000,
    size: Annotated[int, typer.Option(min=1, help="The number of clients in each round.")] = 500,
    minutes: Annotated[float, typer.Option(min=0.05, max=600, help="How long rounds are played.")] = 3.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="The number of processes with the clients.")] = 2,
    method: Annotated[str, typer.Option(help=f"The method, one of {', '.join(METHODS)}.")] = "fed-cma",
    dim: Annotated[int, typer.Option(min=1, help="The length of z.")] = 500,
    json: options.Json = False,
) -> None:
    """Measure a coordinator with thousands of connected clients that compute nothing, on this machine.

    The coordinator is a process with TLS and a database on disk. Each client has a connection, a session and a stream
    of tasks of its own, but only a few processes hold all of them.

    Example: fedbbpt bench scale --clients 5000 --size 500 --minutes 3
    """
    if size > clients:
        raise InvalidInput(f"{size} of {clients} clients", where="--size", fix=f"at most {clients}")
    if method not in METHODS:
        raise InvalidInput(f"unknown method {method!r}", where="--method", fix=f"one of {', '.join(METHODS)}")
    with err.status("") as status, tempfile.TemporaryDirectory(prefix="fedbbpt-bench-") as folder:
        found = measure(Path(folder), clients, size, minutes, processes, method, dim, status.update)
    if json:
        sys.stdout.write(json_text(found.record()) + "\n")
    else:
        out.print(_table(found))


def _table(found: Scale) -> Table:
    table = Table(box=None, show_header=False)
    joined, early, late = found.memory_joined, found.memory_early, found.memory_late
    for name, value in (
        ("clients, and those of a round", f"{found.clients:,}, {found.size:,}"),
        ("joins a second", f"{found.joins_per_second:,.0f}"),
        ("rounds, and seconds", f"{found.rounds:,}, {found.seconds:,.0f}"),
        ("a round, ms", f"{found.round_median:,.0f} (coordinator CPU {found.coordinator_cpu:,.0f})"),
        ("updates a second", f"{found.updates_per_second:,.0f}"),
        ("coordinator's memory, MiB", f"{joined:,.0f} joined, {early:,.0f} early, {late:,.0f} late"),
        ("its peak", f"{found.memory_peak:,.0f}"),
        ("tasks of a client", f"{found.fewest_tasks:,} to {found.most_tasks:,}"),
        ("receipts", ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.receipts.items())) or "none"),
        ("calls lost", ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.lost.items())) or "none"),
    ):
        table.add_row(name, value)
    return table
