"""Whole federations on this machine: `init`, `run`, `demo`, `simulate`."""

import logging
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, log_to_stderr, out, show
from fedbbpt.cli.terminal.run_view import RunView, decimals, size
from fedbbpt.errors import InvalidInput
from fedbbpt.federation import launch
from fedbbpt.federation.evaluation import Comparison
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.federation.run_folder import PROMPT, SUMMARY, FinishedRun, finish_run, prepare_folder
from fedbbpt.federation.simulation import simulate as run_simulation
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.job_file import job_text
from fedbbpt.methods import METHODS
from fedbbpt.types import ExampleKind, Report, Result, RunStatus

JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job; `fedbbpt init` writes one.")]
Out = Annotated[Path, typer.Option(help="The folder for everything that the run leaves.")]
Data = Annotated[
    str, typer.Option(metavar="PATH", help="Other data than the job's: a file, a folder, a Hugging Face name.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Another seed than the job's.", show_default=False)
]

_CLIENTS_SHOWN = 10

DEMO = Job.model_validate(
    {
        "run": {"name": "demo", "rounds": 12},
        "task": {"prompt": {"initial_text": "This question is about", "scale": 2.0, "offsets": True}},
    }
)


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("job.toml"),
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "fed-cma",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a job file with every setting and what it means."""
    if method not in METHODS:
        raise InvalidInput(f"{method!r} is unknown", where="--method", fix=f"one of {', '.join(METHODS)}")
    if path.exists() and not force:
        raise InvalidInput("is there already", where=str(path), fix="another path, or --force")
    path.write_text(job_text(Job.model_validate({"method": {"name": method}})), encoding="utf-8")
    err.print(f"wrote {path}; now: fedbbpt run {path}")


def run(
    job_file: JobFile,
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for everything that the run leaves.")] = Path(
        "run"
    ),
    data: Data = "",
    seed: Seed = None,
    json: options.Json = False,
) -> None:
    """Run a whole federation on this machine: a PTM service, a coordinator and clients, each a process.

    A run that was cut short goes on when the same command is given again.
    """
    _run(changed(read_job(job_file), data, seed), out_folder, json)


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for everything that the run leaves.")] = Path(
        "demo-run"
    ),
    data: Data = "",
    seed: Seed = None,
    json: options.Json = False,
) -> None:
    """Run a federation of four clients with unlike data, on questions to a hospital or on --data."""
    folder, number = out_folder, 1
    while (folder / SUMMARY).exists():
        number += 1
        folder = out_folder.with_name(f"{out_folder.name}-{number}")
    _run(changed(DEMO, data, seed), folder, json)


def simulate(
    job_file: JobFile,
    out_folder: Annotated[Path, typer.Option("--out", help="The folder for everything that the run leaves.")] = Path(
        "simulation"
    ),
    data: Data = "",
    seed: Seed = None,
    json: options.Json = False,
) -> None:
    """Run the same federation in this one process, without a network; it ends with the same prompt, bit for bit."""
    log_to_stderr(logging.WARNING)
    job = changed(read_job(job_file), data, seed)
    prepare_folder(out_folder)
    started = time.monotonic()
    splits = _prepared(job, json)
    asked = splits.job.ptm
    with open_ptm(asked.model, address=asked.address, threads=asked.threads, precision=asked.precision) as ptm:
        splits = splits.with_mapped_classes(ptm)
        with _view(splits.job) as view:
            result, reports = run_simulation(splits, ptm, lambda status: _show_last(view, status))
        _finish(splits, ptm, result, reports, out_folder, started, json)


def changed(job: Job, data: str, seed: int | None) -> Job:
    if data:
        job = job.model_copy(update={"data": job.data.model_copy(update={"source": data})})
    if seed is not None:
        job = job.model_copy(update={"run": job.run.model_copy(update={"seed": seed})})
    return job


def _prepared(job: Job, as_json: bool) -> Splits:
    with err.status("reading the data"):
        splits = prepare(job)
    of_texts = splits.test.examples.kind is ExampleKind.TEXTS
    if of_texts and all(text.isdigit() for text in splits.job.task.classes):
        err.print(
            "The classes are numbers, which tell the model nothing: say what they mean with task.classes in a job."
        )
    if not as_json:
        out.print(shares(splits))
    return splits


def shares(splits: Splits) -> Table:
    """Who trains on what: classes down, clients across, the first of them where there are many, then the server."""
    counts, labels = splits.histogram(), splits.job.task.labels
    columns = list(zip(splits.titles, counts, strict=True))[:_CLIENTS_SHOWN]
    if len(counts) > _CLIENTS_SHOWN:
        columns.append((f"{len(counts) - _CLIENTS_SHOWN} others", counts[_CLIENTS_SHOWN:].sum(axis=0)))
    if len(splits.server):
        columns.append(("server", np.bincount(splits.server.labels, minlength=len(labels))))
    table = Table(box=None, header_style="dim")
    table.add_column("training examples of client")
    for name, _ in columns:
        table.add_column(name, justify="right")
    for index, label in enumerate(labels):
        table.add_row(label, *(str(column[index]) if column[index] else "·" for _, column in columns))
    return table


def _run(job: Job, folder: Path, as_json: bool) -> None:
    log_to_stderr(logging.WARNING)
    prepare_folder(folder)
    started = time.monotonic()
    splits = _prepared(job, as_json)
    with ProcessGroup(folder / "logs") as group:
        with _view(splits.job) as view:
            address = launch.start_ptm(group, splits.job, folder, view.note)
            with open_ptm(address=address, revision=splits.job.ptm.revision) as ptm:
                revision = ptm.describe().revision
                splits = splits.with_mapped_classes(ptm)

                def watch(status: RunStatus, news: tuple[Report, ...]) -> None:
                    view.note(f"{status.state}, {sum(member.connected for member in status.members)} clients connected")
                    view.add(news)

                result, reports = launch.run_federation(group, splits, folder, address, revision, view.note, watch)
        with open_ptm(address=address, revision=revision) as ptm:
            _finish(splits, ptm, result, reports, folder, started, as_json)


def _view(job: Job) -> RunView:
    title = f"{job.run.name}: {job.method.name}, {job.cohort.clients} clients, {job.ptm.model}"
    return RunView(err, title, job.run.rounds)


def _show_last(view: RunView, status: RunStatus) -> None:
    view.note(str(status.state))
    if status.last is not None:
        view.add([status.last])


def _finish(
    splits: Splits,
    ptm: Ptm,
    result: Result,
    reports: tuple[Report, ...],
    folder: Path,
    started: float,
    as_json: bool,
) -> None:
    """Measures the result on the test examples, writes the folder and shows the summary."""
    seconds = time.monotonic() - started
    with Progress(console=err, transient=True) as progress:
        total = 3 * len(splits.test) + sum(map(len, splits.train))
        bar = progress.add_task("measuring on the test examples", total=total)
        finished = finish_run(splits, ptm, result, reports, seconds, lambda queries: progress.advance(bar, queries))
    finished.write(folder)
    if as_json:
        show(finished.summary(), as_json=True)
        return
    out.print(_results(finished, finished.comparison))
    told = f"{folder}/ holds the prompt and its card, the summary, the metrics. Try it:"
    out.print(told, style="dim", highlight=False)
    given = '--text "..."' if splits.test.examples.kind is ExampleKind.TEXTS else "--images FILE.npz"
    out.print(f"  fedbbpt predict --prompt {folder / PROMPT} {given}", highlight=False)


def _results(finished: FinishedRun, compared: Comparison) -> Table:
    summary = finished.summary()
    table = Table(title="on the test examples", title_justify="left", show_header=False, box=None)
    rows = (
        ("accuracy before tuning, no prompt", compared.without),
        ("accuracy of the prompt that the search began with", compared.start),
        ("accuracy with one offset a class instead of a prompt", compared.bias),
        ("accuracy after tuning", compared.tuned),
    )
    for name, value in rows:
        style = "bold green" if value is compared.tuned else ""
        accuracy = None if value is None or value.accuracy is None else 100 * value.accuracy
        table.add_row(name, decimals(accuracy, 1, " %"), style=style)
    before, after = compared.without, compared.tuned
    if before.accuracy is not None and after.accuracy is not None:
        table.add_row("gained by tuning", f"{100 * (after.accuracy - before.accuracy):+.1f} points")
    table.add_row("loss before and after", f"{decimals(before.loss, 3)} -> {decimals(after.loss, 3)}")
    table.add_row("queries of the federation", f"{summary['queries']:,}")
    table.add_row("bytes up, a client and round", size(summary["bytes_up_per_client_round"]))
    table.add_row("bytes down, a client and round", size(summary["bytes_down_per_client_round"]))
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table
