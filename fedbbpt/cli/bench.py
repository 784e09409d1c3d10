"""`fedbbpt bench`: compares methods, and measures how fast a PTM service answers. This file has `bench methods`."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fedbbpt.bench.methods import plots, report
from fedbbpt.bench.methods.controls import CONTROLS
from fedbbpt.bench.methods.grid import IID, Cell, Grid
from fedbbpt.bench.methods.records import Record
from fedbbpt.bench.methods.rows import choose
from fedbbpt.bench.methods.run import run_cells
from fedbbpt.cli import bench_ptm
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, with_bundles
from fedbbpt.cli.terminal.console import err, out, show
from fedbbpt.cli.terminal.model_options import ModelOptions, option_name
from fedbbpt.errors import InvalidInput
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.types import PrecisionChoice

CELLS = "cells"
"""Name of the folder of cells within --out."""

_SHOWN = (0, 1, 2, 5, 8)
"""The columns that fit into a terminal. The files have all columns."""

bench = typer.Typer(no_args_is_help=True, help="Compare methods, and measure how fast a model answers.")
bench.command()(bench_ptm.ptm)


@bench.command()
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
        task=_known(task),
        source=_source(task, data),
        reading=names.given(),
        splits=_splits(alpha),
        seeds=read_seeds(seeds),
        budget=budget_queries,
        methods=choose([word for word in methods.split(",") if word], tuple(CONTROLS)),
        clients=clients,
        shots=shots,
        ptm=_ptm(model, options_of_model),
        test_examples=test_examples,
    )
    records = _run(grid, out_folder / CELLS, processes, threads)
    command = _command(grid, methods, target)
    pictures = plots.draw(grid, records, out_folder)
    page, file = report.write(grid, records, target, command, pictures, out_folder)
    if json:
        show({"page": str(page), "records": str(file), "plots": [str(picture) for picture in pictures]}, as_json=True)
        return
    for split in grid.splits:
        out.print(_table(grid, report.summaries(grid, records), split, target))
    out.print(f"{out_folder}/ holds {', '.join(path.name for path in (page, file, *pictures))}", style="dim")


def _run(grid: Grid, folder: Path, processes: int, threads: int) -> Sequence[Record]:
    """Runs the cells with a progress bar."""
    cells = grid.cells()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err,
    ) as progress:
        bar = progress.add_task("cells", total=len(cells))

        def done(cell: Cell) -> None:
            progress.update(bar, description=f"{cell.method}, {report.title(cell.split)}, seed {cell.job.run.seed}")
            progress.advance(bar)

        return run_cells(cells, folder, processes=processes, threads=threads, done=done)


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


def read_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds such as "0..4", which includes both ends, or "0,1,2". Raises InvalidInput."""
    first, dots, last = text.partition("..")
    try:
        found = tuple(range(int(first), int(last) + 1)) if dots else tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise InvalidInput(f"{text!r} is not a list of seeds", where="--seeds", fix="such as 0..4 or 0,1,2")
    return found


def _splits(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        try:
            valid = word == IID or 0 < float(word) < math.inf
        except ValueError:
            valid = False
        if not valid or words.count(word) > 1:
            fix = "different numbers above 0, or iid, such as 0.1,1.0,iid"
            raise InvalidInput(f"invalid {word!r} in {text!r}", where="--alpha", fix=fix)
    return words


def _known(task: str) -> str:
    if task not in MANUAL_PROMPTS:
        raise InvalidInput(f"unknown task {task!r}", where="--task", fix=f"one of {', '.join(MANUAL_PROMPTS)}")
    return task


def _ptm(model: str, options: ModelOptions) -> PtmSection:
    """Returns the model of all cells, which have one precision, so that their results can be compared."""
    if options.precision is PrecisionChoice.AUTO:
        what = "a comparison has one precision on every machine"
        raise InvalidInput(what, where="--precision", fix="float32 or bfloat16")
    job = Job.model_validate({"ptm": {"model": model, "precision": "float32"}})
    return options.apply(job).ptm


def _source(task: str, data: str) -> str:
    if task == "demo":
        if data:
            raise InvalidInput(
                "the task demo makes its own data", where="--data", fix="leave it out, or another --task"
            )
        return "demo"
    if not data:
        raise InvalidInput("no data is given", where="--data", fix=f"the folder with the files of {task}")
    return data


def _command(grid: Grid, methods: str, target: float) -> str:
    """Returns the command that makes this table again, without the path of the data."""
    words = ["fedbbpt", "bench", "methods", "--task", grid.task]
    words += [] if grid.task == "demo" else ["--data", "FOLDER"]
    for key, value in grid.reading.items():
        words += [option_name(key), value]
    words += ["--alpha", ",".join(grid.splits), "--seeds", ",".join(map(str, grid.seeds))]
    words += ["--budget-queries", str(grid.budget), "--clients", str(grid.clients), "--shots", str(grid.shots)]
    words += [
        "--model",
        report.model_name(grid),
        "--target-accuracy",
        f"{target:g}",
        "--test-examples",
        str(grid.test_examples),
    ]
    plain = PtmSection(precision=PrecisionChoice.FLOAT32).options()
    for key, value in grid.ptm.options().items():
        words += [option_name(key), str(value)] if value != plain[key] else []
    words += ["--methods", methods] if methods else []
    return shlex.join(words)
