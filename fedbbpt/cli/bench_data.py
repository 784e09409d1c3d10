"""`fedbbpt bench data`: accuracy against the number of examples, alone, together and pooled."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.table import Table

from fedbbpt.bench.data_sizes import picture, report
from fedbbpt.bench.data_sizes.grid import Cell, DataGrid, measure
from fedbbpt.bench.data_sizes.records import Record
from fedbbpt.bench.methods.report import title
from fedbbpt.bench.methods.rows import Learns, MethodRow, choose
from fedbbpt.cli.bench_grids import (
    CELLS,
    known_task,
    model_words,
    read_model,
    read_seeds,
    read_source,
    read_splits,
    run_with_progress,
    shared_words,
)
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.errors import InvalidInput
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS


@with_bundles
def data(
    options_of_model: ModelOptions,
    names: ColumnNames,
    task: Annotated[str, typer.Option(help=f"The task, one of {', '.join(MANUAL_PROMPTS)}.")] = "demo",
    data: Annotated[
        str, typer.Option(metavar="PATH", help="The task's data: a folder with train, dev and test files, or a file.")
    ] = "",
    sizes: Annotated[
        str,
        typer.Option(help="The numbers of training examples of each class, over all members; 0 means all there are."),
    ] = "16,64,0",
    most: Annotated[
        int, typer.Option(min=1, help="The most training examples where --sizes has 0.", show_default=True)
    ] = 2000,
    alpha: Annotated[
        str, typer.Option(help="The partitions: alphas of Dirichlet partitions, or iid, such as 0.1,1.0,iid.")
    ] = "0.1,iid",
    seeds: Annotated[str, typer.Option(help="The seeds of the runs, such as 0..4 or 0,1,2.")] = "0..2",
    methods: Annotated[
        str,
        typer.Option(
            help="The searches, separated by commas: built-in rows, TOML files or folders. The methods without a "
            "search are always there."
        ),
    ] = "",
    learns: Annotated[
        str, typer.Option(help="With whose examples each search is run: alone, together, pooled.")
    ] = "alone,together,pooled",
    budget_queries: Annotated[
        int, typer.Option(min=1, help="The most queries of one search, on training and dev examples together.")
    ] = 60_000,
    clients: Annotated[int, typer.Option(min=2, help="The number of clients.")] = 10,
    model: Annotated[str, typer.Option(help="The PTM, named as in a job file.")] = "all-MiniLM-L6-v2",
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for tables, plots and cells.")
    ] = Path("docs/results"),
    test_examples: Annotated[int, typer.Option(min=0, help="The most test examples; 0 means all.")] = 1000,
    processes: Annotated[int, typer.Option(min=1, help="The number of cells that run at the same time.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model in each process; 0 means all cores.")] = 1,
    json: options.Json = False,
) -> None:
    """Measure what more data is worth to members alone, together, and pooled.

    If a run is interrupted, the same command continues it.
    """
    grid = DataGrid(
        task=known_task(task),
        source=read_source(task, data),
        reading=names.given(),
        shots=_sizes(sizes),
        most=most,
        splits=read_splits(alpha),
        seeds=read_seeds(seeds),
        rows=_rows(methods),
        learns=_learns(learns),
        budget=budget_queries,
        clients=clients,
        ptm=read_model(model, options_of_model),
        test_examples=test_examples,
    )
    records = run_with_progress(grid.cells(), out_folder / CELLS, measure, Record, processes, threads, _title)
    drawn = picture.draw(grid, records, out_folder)
    page, file = report.write(grid, records, _command(grid, methods), drawn, out_folder)
    if json:
        show({"page": str(page), "records": str(file), "picture": str(drawn)}, as_json=True)
        return
    for split in grid.splits:
        for shots in grid.shots:
            out.print(_table(grid, records, split, shots))
    out.print(f"{out_folder}/ holds {', '.join(path.name for path in (page, file, drawn))}", style="dim")


def _title(cell: Cell) -> str:
    method = f"{cell.method} {cell.learns}" if cell.method else "without a search"
    size = f"{cell.shots} of each class" if cell.shots else "all examples"
    return f"{method}, {title(cell.split)}, {size}, seed {cell.job.run.seed}"


def _table(grid: DataGrid, records: Sequence[Record], split: str, shots: int) -> Table:
    name = f"{grid.task}, {title(split)}, {report.size_title(records, shots)}"
    table = Table(title=name, title_justify="left", box=None, header_style="dim")
    for place, column in enumerate(report.COLUMNS):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in report.rows(records, split, shots):
        table.add_row(*row)
    return table


def _sizes(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        fix = "different whole numbers, such as 16,64,0"
        raise InvalidInput(f"{text!r} is not a list of sizes", where="--sizes", fix=fix)
    return found


def _rows(text: str) -> tuple[MethodRow, ...]:
    words = [word for word in text.split(",") if word]
    return tuple(row for row in choose(words, ()) if isinstance(row, MethodRow)) if words else ()


def _learns(text: str) -> tuple[Learns, ...]:
    words = text.split(",")
    found = tuple(learns for learns in get_args(Learns) if learns in words)
    if len(found) != len(words):
        fix = f"different ones of {', '.join(get_args(Learns))}"
        raise InvalidInput(f"{text!r} does not say whose examples", where="--learns", fix=fix)
    return found


def _command(grid: DataGrid, methods: str) -> str:
    """Returns the command that makes these tables again, without the path of the data."""
    words = ["fedbbpt", "bench", "data", *shared_words(grid.reading, grid.task)]
    words += ["--sizes", ",".join(map(str, grid.shots)), "--most", str(grid.most)]
    words += ["--alpha", ",".join(grid.splits), "--seeds", ",".join(map(str, grid.seeds))]
    words += ["--methods", methods, "--learns", ",".join(grid.learns)] if methods else []
    words += ["--budget-queries", str(grid.budget), "--clients", str(grid.clients), *model_words(grid.ptm)]
    return shlex.join([*words, "--test-examples", str(grid.test_examples)])
