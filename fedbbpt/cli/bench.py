"""`fedbbpt bench`: compares methods, and measures how fast a PTM service answers. This file has `bench methods`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.methods import plots, report
from fedbbpt.bench.methods.controls import CONTROLS
from fedbbpt.bench.methods.grid import Cell, Grid, measure
from fedbbpt.bench.methods.records import Record
from fedbbpt.bench.methods.rows import choose
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
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS

_SHOWN = (0, 1, 2, 5, 8)
"""The columns that fit into a terminal. The files have all columns."""


@with_bundles
def methods(
    budget_queries: Annotated[
        int, typer.Option(min=1, help="The most queries of one run, on training and dev examples together.")
    ],
    options_of_model: ModelOptions,
    names: ColumnNames,
    task: Annotated[str, typer.Option(help=f"The task, one of {', '.join(MANUAL_PROMPTS)}.")] = "demo",
    data: Annotated[
        str, typer.Option(metavar="PATH", help="The task's data: a folder with train, dev and test files, or a file.")
    ] = "",
    alpha: Annotated[
        str, typer.Option(help="The partitions: alphas of Dirichlet partitions, or iid, such as 0.1,1.0,iid.")
    ] = "0.1",
    seeds: Annotated[str, typer.Option(help="The seeds of the runs, such as 0..4 or 0,1,2.")] = "0..2",
    methods: Annotated[
        str,
        typer.Option(
            help="The methods, separated by commas: built-in names, TOML files or folders. By default all built in."
        ),
    ] = "",
    clients: Annotated[int, typer.Option(min=1, help="The number of clients.")] = 10,
    shots: Annotated[
        int, typer.Option(min=1, help="The number of training examples of each class, and of dev examples.")
    ] = 16,
    model: Annotated[str, typer.Option(help="The PTM, named as in a job file.")] = "all-MiniLM-L6-v2",
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for tables, plots and cells.")
    ] = Path("docs/results"),
    target: Annotated[
        float,
        typer.Option("--target-accuracy", min=0, max=1, help="The accuracy up to which the table counts queries."),
    ] = 0.6,
    test_examples: Annotated[int, typer.Option(min=0, help="The most test examples; 0 means all.")] = 1000,
    processes: Annotated[int, typer.Option(min=1, help="The number of cells that run at the same time.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model in each process; 0 means all cores.")] = 1,
    json: options.Json = False,
) -> None:
    """Run methods and baselines under one budget of queries, and write tables and plots.

    If a run is interrupted, the same command continues it.
    """
    grid = Grid(
        task=known_task(task),
        source=read_source(task, data),
        reading=names.given(),
        splits=read_splits(alpha),
        seeds=read_seeds(seeds),
        budget=budget_queries,
        methods=choose([word for word in methods.split(",") if word], tuple(CONTROLS)),
        clients=clients,
        shots=shots,
        ptm=read_model(model, options_of_model),
        test_examples=test_examples,
    )
    records = run_with_progress(grid.cells(), out_folder / CELLS, measure, Record, processes, threads, _title)
    command = _command(grid, methods, target)
    pictures = plots.draw(grid, records, out_folder)
    page, file = report.write(grid, records, target, command, pictures, out_folder)
    if json:
        show({"page": str(page), "records": str(file), "plots": [str(picture) for picture in pictures]}, as_json=True)
        return
    for split in grid.splits:
        out.print(_table(grid, report.summaries(grid, records), split, target))
    out.print(f"{out_folder}/ holds {', '.join(path.name for path in (page, file, *pictures))}", style="dim")


def _title(cell: Cell) -> str:
    return f"{cell.method}, {report.title(cell.split)}, seed {cell.job.run.seed}"


def _table(grid: Grid, found: tuple[report.Summary, ...], split: str, target: float) -> Table:
    table = Table(title=f"{grid.task}, {report.title(split)}", title_justify="left", box=None, header_style="dim")
    for column in _SHOWN:
        name = report.COLUMNS[column].format(target=f"{100 * target:g}")
        table.add_column(name, justify="right" if column else "left", no_wrap=True)
    for summary in found:
        if summary.split == split:
            cells = summary.cells(target)
            table.add_row(*(cells[column] for column in _SHOWN))
    return table


def _command(grid: Grid, methods: str, target: float) -> str:
    """Returns the command that makes this table again, without the path of the data."""
    words = ["fedbbpt", "bench", "methods", *shared_words(grid.reading, grid.task)]
    words += ["--alpha", ",".join(grid.splits), "--seeds", ",".join(map(str, grid.seeds))]
    words += ["--budget-queries", str(grid.budget), "--clients", str(grid.clients), "--shots", str(grid.shots)]
    words += [*model_words(grid.ptm), "--target-accuracy", f"{target:g}", "--test-examples", str(grid.test_examples)]
    words += ["--methods", methods] if methods else []
    return shlex.join(words)
