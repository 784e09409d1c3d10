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
from fedbbpt.limits import MAX_ROUNDS


def scale(
    clients: Annotated[int, typer.Option(min=1, max=10_000, help="The number of connected clients.")] = 5000,
    size: Annotated[int, typer.Option(min=1, help="The number of clients in each round.")] = 500,
    rounds: Annotated[
        int, typer.Option(min=0, max=MAX_ROUNDS, help="The number of rounds. 0: as many as --minutes allow.")
    ] = 0,
    minutes: Annotated[
        float, typer.Option(min=0.05, max=600, help="How long rounds are played, without --rounds.")
    ] = 3.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="The number of processes with the clients.")] = 2,
    method: Annotated[str, typer.Option(help=f"The method, one of {', '.join(METHODS)}.")] = "fed-cma",
    dim: Annotated[int, typer.Option(min=1, help="The length of z.")] = 500,
    json: options.Json = False,
) -> None:
    """Measure a coordinator with thousands of connected clients that compute nothing, on this machine.

    The coordinator is a process with TLS and a database on disk. Each client has a connection, a session and a stream
    of tasks of its own, but only a few processes hold all of them.

    Example: fedbbpt bench scale --clients 5000 --size 500 --rounds 360
    """
    if size > clients:
        raise InvalidInput(f"{size} of {clients} clients", where="--size", fix=f"at most {clients}")
    if method not in METHODS:
        raise InvalidInput(f"unknown method {method!r}", where="--method", fix=f"one of {', '.join(METHODS)}")
    with err.status("") as status, tempfile.TemporaryDirectory(prefix="fedbbpt-bench-") as folder:
        found = measure(Path(folder), clients, size, rounds, minutes, processes, method, dim, status.update)
    if json:
        sys.stdout.write(json_text(found.record()) + "\n")
    else:
        out.print(_table(found))


def _table(found: Scale) -> Table:
    table = Table(box=None, show_header=False)
    growth = found.memory_late / found.memory_early - 1
    verdict = "flat" if found.flat else "it grows"
    for name, value in (
        ("clients, and those of a round", f"{found.clients:,}, {found.size:,}"),
        ("joins a second", f"{found.joins_per_second:,.0f}"),
        ("rounds, and seconds", f"{found.rounds:,}, {found.seconds:,.0f}"),
        ("a round, ms", f"{found.round_median:,.0f} (coordinator CPU {found.coordinator_cpu:,.0f})"),
        ("updates a second", f"{found.updates_per_second:,.0f}"),
        ("coordinator's memory, MiB", f"{found.memory_joined:,.0f} joined, {found.memory_peak:,.0f} at most"),
        ("while rounds are played", ", ".join(f"{part:,.0f}" for part in found.memory)),
        ("from the second quarter to the last", f"{growth:+.1%}: {verdict}"),
        ("tasks of a client", f"{found.fewest_tasks:,} to {found.most_tasks:,}, {found.tasks_expected:,.1f} expected"),
        ("clients that starved", f"{found.starved:,}"),
        ("receipts", ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.receipts.items())) or "none"),
        ("calls lost", ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.lost.items())) or "none"),
    ):
        table.add_row(name, value)
    return table
