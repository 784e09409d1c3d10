"""`fedbbpt bench rounds`: measures how long rounds take when nobody computes."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.page import Page, circumstances, table_line
from fedbbpt.bench.rounds import flower
from fedbbpt.bench.rounds.measuring import flush_seconds
from fedbbpt.bench.rounds.suite import COLUMNS, Rounds, measure
from fedbbpt.bench.rounds.zero_compute import METHODS, SUMMED
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out
from fedbbpt.errors import InvalidInput
from fedbbpt.host.json_text import json_text

BENCHMARK = "fedbbpt bench rounds"
MOST_CLIENTS = 2000
FLOWER_ROUNDS = 3
BOTH, BOTH_CLIENTS = "fed-cma", 16
"""The method that is measured with secure aggregation besides plain rounds, and the fewest clients."""


def rounds(
    counts: Annotated[str, typer.Option("--counts", help="The numbers of clients, separated by commas.")] = (
        "2,16,128,512"
    ),
    methods: Annotated[str, typer.Option(help="The methods, separated by commas.")] = ",".join(METHODS),
    dim: Annotated[int, typer.Option(min=1, help="The length of z.")] = 500,
    watchers: Annotated[int, typer.Option(min=0, help="The number of operators that watch each run.")] = 0,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Another framework to measure with 2 clients, installed into an environment of its own: flower.",
        ),
    ] = "",
    aggregation: Annotated[
        str,
        typer.Option(
            help="plain, or secure: measures each run without and with secure aggregation, of 3 clients in place of "
            f"fewer; or both: plain, and then {BOTH} with secure aggregation of at least {BOTH_CLIENTS} clients."
        ),
    ] = "both",
    page: Annotated[
        Path | None,
        typer.Option(help="The Markdown page to write the figures into, between its marks.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure rounds of clients that compute nothing, next to a bare gRPC barrier, on this machine.

    The coordinator is a process with TLS and a database on disk. Up to 16 clients are this project's own, each in a
    process of its own; more are lean clients in one process. Run little else on the machine meanwhile.

    Example: fedbbpt bench rounds --counts 2,16 --methods fed-cma
    """
    place = None if page is None else Page.read(page, BENCHMARK)
    found = circumstances(shlex.join(["fedbbpt", *sys.argv[1:]]), "grpcio")
    numbers, names = _numbers(counts), _names(methods, aggregation)
    if against not in ("", "flower"):
        raise InvalidInput(f"unknown framework {against!r}", where="--against", fix="flower")
    with err.status("") as status, tempfile.TemporaryDirectory(prefix="fedbbpt-bench-") as folder:
        flush = 1000 * flush_seconds(Path(folder))
        plain, secure = list[Rounds](), list[Rounds]()
        work = partial(measure, Path(folder), dim=dim, watchers=watchers, progress=status.update)
        if aggregation != "secure":
            plain += work(methods=names, clients=numbers)
        if aggregation == "secure":
            secure += work(methods=names, clients=numbers, aggregation="secure")
        elif aggregation == "both" and BOTH in names and (enough := [each for each in numbers if each >= BOTH_CLIENTS]):
            secure += work(methods=[BOTH], clients=enough, aggregation="secure")
        others = flower.measure(Path(folder), dim, FLOWER_ROUNDS, status.update) if against else []
    notes = [f"A flush of this disk took {flush:.2f} ms.", *_comparison(others, plain)]
    if place is not None:
        heading = ["### With secure aggregation", ""] if secure else []
        place.write(found, [*_part(plain, notes), *heading, *_part(secure, _costs(secure))])
    if json:
        records = [each.record() for each in [*plain, *secure]]
        sys.stdout.write(json_text(found | {"flush": flush, "rounds": records, "flower_seconds": others}) + "\n")
    else:
        for measured, said in ((plain, notes), (secure, _costs(secure))):
            if measured:
                out.print(_table(measured))
                out.print(*said, sep="\n", style="dim")


def _comparison(others: Sequence[float], measured: Sequence[Rounds]) -> list[str]:
    if not others:
        return []
    other = median(others)
    text = f"A round of Flower {flower.VERSION}'s deployment engine with {flower.NODES} nodes took {other:.1f} s"
    ours = [each.median for each in measured if each.clients == flower.NODES]
    return [f"{text}, {1000 * other / min(ours):,.0f} times as long as here." if ours else f"{text}."]


def _costs(measured: Sequence[Rounds]) -> list[str]:
    """Returns what secure aggregation costs, beside the plain run of the same clients."""
    lines = []
    for plain, secure in pairwise(measured):
        if secure.aggregation == "secure":
            total = sum(each or 0.0 for each in (secure.bytes_up, secure.bytes_down))
            text = f"{secure.method} with {secure.clients} clients: secure aggregation takes "
            text += f"{secure.median / plain.median:.1f} times the plain round's time"
            lines.append(f"{text}, and {total:,.0f} bytes per client and round.")
    return lines


def _numbers(counts: str) -> list[int]:
    try:
        found = [int(word) for word in counts.split(",")]
    except ValueError:
        found = []
    if not found or not all(1 <= number <= MOST_CLIENTS for number in found):
        raise InvalidInput(f"{counts!r}", where="--counts", fix=f"numbers from 1 to {MOST_CLIENTS}, such as 2,16")
    return found


def _names(methods: str, aggregation: str) -> list[str]:
    if aggregation not in ("plain", "secure", "both"):
        raise InvalidInput(f"unknown aggregation {aggregation!r}", where="--aggregation", fix="plain, secure or both")
    found = [word.strip() for word in methods.split(",")]
    for word in found:
        if word not in METHODS:
            raise InvalidInput(f"unknown method {word!r}", where="--methods", fix=f"one of {', '.join(METHODS)}")
        if aggregation == "secure" and word not in SUMMED:
            what, fix = f"{word} cannot use secure aggregation", f"some of {', '.join(SUMMED)}"
            raise InvalidInput(what, where="--methods", fix=fix)
    return found


def _part(measured: Sequence[Rounds], notes: Sequence[str]) -> list[str]:
    """Returns the lines of a page with a table and what is said about it; none if nothing was measured."""
    if not measured:
        return []
    head = [table_line(COLUMNS), "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    said = [line for note in notes for line in (note, "")]
    return [*head, *(table_line(each.cells()) for each in measured), "", *said]


def _table(measured: Sequence[Rounds]) -> Table:
    table = Table(box=None, header_style="dim")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index else "left")
    for each in measured:
        table.add_row(*each.cells())
    return table
