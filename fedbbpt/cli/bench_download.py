"""`fedbbpt bench download`: measures the download of an auxiliary model next to a bare gRPC stream."""

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.rounds.download import MEBIBYTE, Downloads, measure
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out
from fedbbpt.host.json_text import json_text


def download(
    size: Annotated[
        int, typer.Option("--mebibytes", min=1, max=65_536, help="The size of the auxiliary model, in MiB.")
    ] = 2048,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="The number of downloads.")] = 3,
    json: options.Json = False,
) -> None:
    """Measure the download of an auxiliary model, next to a bare gRPC stream of as many bytes, here.

    Both use TLS, the same two processes and messages of the same size, and take turns. The download writes the file to
    the disk and computes its digest as well. It needs twice the file's size on the disk of the temporary folder.

    Example: fedbbpt bench download --mebibytes 2048
    """
    with err.status("") as status, tempfile.TemporaryDirectory(prefix="fedbbpt-bench-") as folder:
        found = measure(Path(folder), size, repeats, status.update)
    if json:
        sys.stdout.write(json_text(found.record()) + "\n")
    else:
        out.print(_table(found))


def _table(found: Downloads) -> Table:
    table = Table(box=None, header_style="dim")
    for index, column in enumerate(("", "MiB/s", "CPU s/GiB")):
        table.add_column(column, justify="right" if index else "left")
    size = found.size / MEBIBYTE
    for name, seconds, cpu in (
        ("bare stream", found.bare, found.bare_cpu),
        ("download", found.own, found.own_cpu),
    ):
        table.add_row(name, f"{size / median(seconds):,.0f}", f"{1024 * median(cpu) / size:.2f}")
    table.add_row("share of the bare stream", f"{found.share:.0%}", f"{found.cpu_share:.0%}")
    return table
