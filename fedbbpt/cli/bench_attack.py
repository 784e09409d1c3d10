"""`fedbbpt bench attack`: what clients that lie cost, with and without each defence."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.attack import report
from fedbbpt.bench.attack.attacks import ATTACKS
from fedbbpt.bench.attack.grid import NO_RULE, AttackGrid, Cell, Record, measure
from fedbbpt.cli.bench_grids import CELLS, model_words, read_model, read_seeds, run_with_progress
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.errors import InvalidInput
from fedbbpt.server.robust.defence import RULES

RULE_NAMES = (NO_RULE, *RULES)


@with_bundles
def attack(
    options_of_model: ModelOptions,
    attacks: Annotated[
        str, typer.Option(help=f"The kinds of lies, separated by commas, of {', '.join(ATTACKS)}.")
    ] = ",".join(ATTACKS),
    liars: Annotated[str, typer.Option(help="The numbers of clients that lie, such as 1,2,3.")] = "1,2,3",
    rules: Annotated[
        str, typer.Option(help=f"The values of cohort.robust to compare, of {', '.join(RULE_NAMES)}.")
    ] = "none,clip",
    seeds: Annotated[str, typer.Option(help="The seeds of the runs, such as 0..4 or 0,1,2.")] = "0",
    clients: Annotated[int, typer.Option(min=3, help="The number of clients.")] = 10,
    shots: Annotated[
        int, typer.Option(min=1, help="The number of training examples of each class, and of dev examples.")
    ] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="The number of rounds.")] = 20,
    model: Annotated[str, typer.Option(help="The PTM, named as in a job file.")] = "all-MiniLM-L6-v2",
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for tables, plots and cells.")
    ] = Path("docs/results"),
    processes: Annotated[int, typer.Option(min=1, help="The number of cells that run at the same time.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model in each process; 0 means all cores.")] = 1,
    json: options.Json = False,
) -> None:
    """Let some clients of a small federation lie, and compare the rules of cohort.robust.

    If a run is interrupted, the same command continues it.
    """
    grid = AttackGrid(
        attacks=_chosen(attacks, tuple(ATTACKS), "--attacks"),
        liars=_numbers(liars, clients),
        rules=_chosen(rules, RULE_NAMES, "--rules"),
        seeds=read_seeds(seeds),
        clients=clients,
        shots=shots,
        rounds=rounds,
        ptm=read_model(model, options_of_model),
    )
    records = run_with_progress(grid.cells(), out_folder / CELLS, measure, Record, processes, threads, _title)
    page, file = report.write(grid, records, _command(grid), out_folder)
    if json:
        show({"page": str(page), "records": str(file)}, as_json=True)
        return
    out.print(_table(grid, records))
    out.print(f"{out_folder}/ holds {page.name}, {file.name}", style="dim")


def _title(cell: Cell) -> str:
    return f"{cell.attack}, {cell.liars} liars, {cell.job.cohort.robust}, seed {cell.job.run.seed}"


def _table(grid: AttackGrid, records: Sequence[Record]) -> Table:
    table = Table(title="test accuracy in percent", title_justify="left", box=None, header_style="dim")
    for place, column in enumerate(report.columns(grid)):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in report.rows(grid, records):
        table.add_row(*row)
    return table


def _chosen(text: str, known: tuple[str, ...], where: str) -> tuple[str, ...]:
    words = text.split(",")
    if not set(words) <= set(known) or len(set(words)) < len(words):
        raise InvalidInput(f"{text!r} is not such a list", where=where, fix=f"different ones of {', '.join(known)}")
    return tuple(words)


def _numbers(text: str, clients: int) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or 2 * max(found) >= clients or len(set(found)) < len(found):
        fix = f"different numbers of less than half the {clients} clients, such as 1,2"
        raise InvalidInput(f"{text!r} are not numbers of liars", where="--liars", fix=fix)
    return found


def _command(grid: AttackGrid) -> str:
    """Returns the command that makes this table again."""
    words = ["fedbbpt", "bench", "attack", "--attacks", ",".join(grid.attacks)]
    words += ["--liars", ",".join(map(str, grid.liars)), "--rules", ",".join(grid.rules)]
    words += ["--seeds", ",".join(map(str, grid.seeds)), "--clients", str(grid.clients)]
    words += ["--shots", str(grid.shots), "--rounds", str(grid.rounds), *model_words(grid.ptm)]
    return shlex.join(words)
