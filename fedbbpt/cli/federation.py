"""Whole federations on this machine: `init`, `run`, `demo`, `simulate`."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.demo_jobs import MODELS, demo_job
from fedbbpt.cli.run_page import has_dashboard, require_dashboard, start_dashboard
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import JobChanges, with_bundles
from fedbbpt.cli.terminal.console import err, out, show, warned
from fedbbpt.cli.terminal.forecast_view import forecast_lines, rehearsed
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.cli.terminal.run_tables import accuracies, results, shares
from fedbbpt.cli.terminal.run_view import RunView
from fedbbpt.data.quality import DataWarning
from fedbbpt.errors import FedbbptError, InvalidInput
from fedbbpt.federation import launch
from fedbbpt.federation.comparison import cost
from fedbbpt.federation.crew import Crew, CrewPlan, LocalCrew
from fedbbpt.federation.forecast import measured_rate, rate_of
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.federation.ray_crew import over_ray
from fedbbpt.federation.rehearsal import RehearsalPtm
from fedbbpt.federation.run_folder import (
    JOB,
    PROMPT,
    STORE,
    SUMMARY,
    compared_data,
    finish_run,
    prepare_folder,
    with_precision,
    with_recorded_precision,
)
from fedbbpt.federation.run_records import MetricsFile
from fedbbpt.federation.run_warnings import data_warnings, model_warnings
from fedbbpt.federation.simulation import RUN_ID, Simulation
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.federation.spread_crew import over_processes
from fedbbpt.federation.task_completion import check_prompt
from fedbbpt.host.files import atomic_write
from fedbbpt.host.progress import progress
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.job_file import job_text
from fedbbpt.job.recommended import DEFAULT_METHOD, recommended
from fedbbpt.methods import METHODS, find_method, method_names
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.remote import RunNews
from fedbbpt.sinks.run_log import RunLog, kept_key
from fedbbpt.types import ExampleKind, PrecisionChoice, Report, Result
from fedbbpt.wire import tracing

REHEARSAL_SECONDS = 3.0
"""How long `run` may rehearse before it begins; the rounds that are left are estimated."""


class SimulationEngine(StrEnum):
    """The processes in which the clients of a simulation compute."""

    LOCAL = "local"
    RAY = "ray"


def init(
    path: Annotated[Path, typer.Argument(help="The job file to write.")] = Path("job.toml"),
    method: Annotated[
        str,
        typer.Option(
            help=f"The method whose keys the file lists: one of {', '.join(METHODS)}, or an installed plug-in."
        ),
    ] = DEFAULT_METHOD,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a job file with every key and its meaning.

    Example: fedbbpt init job.toml
    """
    if find_method(method) is None:
        raise InvalidInput(f"{method!r} is unknown", where="--method", fix=f"one of {', '.join(method_names())}")
    if path.exists() and not force:
        raise InvalidInput("the file exists already", where=str(path), fix="another path, or --force")
    path.write_text(job_text(recommended(method)), encoding="utf-8")
    err.print(f"wrote {path}; now: fedbbpt run {path}")


@with_bundles
def run(
    job_file: options.JobFile,
    changes: JobChanges,
    model: ModelOptions,
    out_folder: options.RunFolder = Path("run"),
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Show the run on a web page as well, at the address that is printed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Run a whole federation on this machine, with a PTM service, a coordinator and clients as separate processes.

    An interrupted run continues when you give the same command again.

    Example: fedbbpt run job.toml --out run
    """
    if dashboard:
        require_dashboard()
    _run(model.apply(changes.apply(read_job(job_file))), out_folder, json, dashboard=dashboard)


@with_bundles
def demo(
    changes: JobChanges,
    options_of_model: ModelOptions,
    model: Annotated[str, typer.Option(help=f"The model to query: {' or '.join(MODELS)}.")] = MODELS[0],
    out_folder: options.RunFolder = Path("demo-run"),
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard/--no-dashboard", help="Show the run on a web page as well, at the address that is printed."
        ),
    ] = True,
    json: options.Json = False,
) -> None:
    """Run a federation of four clients with different mixes of classes, on questions to a hospital or on --data.

    Example: fedbbpt demo --data my.csv
    """
    job = demo_job(model, changes.data)
    folder, number = out_folder, 1
    while (folder / SUMMARY).exists():
        number += 1
        folder = out_folder.with_name(f"{out_folder.name}-{number}")
    if dashboard and not has_dashboard():
        dashboard = False
        err.print("pip install 'fedbbpt[web]' to watch the run in a browser", style="dim", highlight=False)
    _run(options_of_model.apply(changes.apply(job)), folder, json, dashboard=dashboard)


@with_bundles
def simulate(
    job_file: options.JobFile,
    changes: JobChanges,
    model: ModelOptions,
    out_folder: options.RunFolder = Path("simulation"),
    engine: Annotated[
        SimulationEngine,
        typer.Option(help="Where the clients work: in processes of this machine, or of a Ray cluster."),
    ] = SimulationEngine.LOCAL,
    processes: Annotated[
        int,
        typer.Option(
            min=0,
            help="The number of processes with clients, each of which loads the model. 0: this process, or 2 on Ray.",
        ),
    ] = 0,
    ray_address: Annotated[
        str,
        typer.Option(help="The running Ray cluster, such as ray://HOST:10001. By default the command starts one."),
    ] = "",
    json: options.Json = False,
) -> None:
    """Run the same federation in one process without a network. It ends with the same prompt, bit for bit.

    An interrupted simulation continues when you give the same command again.

    Example: fedbbpt simulate job.toml
    """
    log_to_stderr(logging.WARNING)
    if ray_address and engine is not SimulationEngine.RAY:
        raise InvalidInput("a cluster needs Ray", where="--ray-address", fix="--engine ray")
    job = model.apply(changes.apply(read_job(job_file)))
    prepare_folder(out_folder)
    started = time.monotonic()
    splits = _prepared(with_recorded_precision(job, out_folder), json)
    warnings = [*warned(data_warnings(splits))]
    section = splits.job.ptm
    served = {"address": section.address, "send_labels": section.send_labels}
    loading = {**served, "threads": section.threads, **section.options()}
    with ExitStack() as stack:
        ptm = stack.enter_context(open_ptm(section.model, revision=section.revision, **loading))
        splits = replace(splits, job=with_precision(splits.job, ptm.describe().precision)).completed_by(ptm)
        warnings += warned(model_warnings(splits, ptm))
        atomic_write(out_folder / JOB, job_text(splits.job))
        card = ptm.describe()
        # Workers must load the same model, and neither measure its precision again nor accept another revision.
        loading |= {"precision": PrecisionChoice(card.precision)} if card.precision and not section.address else {}
        crew = _crew(
            engine, processes, ray_address, partial(open_ptm, section.model, revision=card.revision, **loading)
        )
        key = kept_key(out_folder) if job.log.anywhere else ""
        log = stack.enter_context(closing(RunLog(splits.job, out_folder, key)))
        with _view(splits.job) as view, closing(Simulation(splits, ptm, out_folder, crew)) as simulation:
            metrics = MetricsFile(out_folder)
            log.follow(RUN_ID, simulation.reports_since, simulation.events_since)
            metrics.write(simulation.reports_since)
            view.add(simulation.reports_since(0))
            for closed in simulation.rounds():
                metrics.write(simulation.reports_since)
                view.note(str(closed.status.state))
                view.add([closed.report])
                log.follow(RUN_ID, simulation.reports_since, simulation.events_since)
            result, reports = simulation.result(), simulation.reports_since(0)
        _finish(splits, ptm, result, reports, warnings, out_folder, started, json, log)


def _crew(
    engine: SimulationEngine, processes: int, ray_address: str, open_worker: Callable[[], AbstractContextManager[Ptm]]
) -> Callable[[CrewPlan, Ptm], Crew]:
    if engine is SimulationEngine.RAY:
        return over_ray(open_worker, processes or 2, ray_address)
    return over_processes(open_worker, processes) if processes else LocalCrew


def _prepared(job: Job, as_json: bool) -> Splits:
    with progress("reading the data"):
        splits = prepare(job)
    of_texts = splits.test.examples.kind is ExampleKind.TEXTS
    if of_texts and all(text.isdigit() for text in splits.job.task.classes):
        err.print("The classes are numbers, which mean nothing to the model: describe them in task.classes of a job.")
    if not as_json:
        out.print(shares(splits))
    return splits


def _run(job: Job, folder: Path, as_json: bool, *, dashboard: bool) -> None:
    log_to_stderr(logging.WARNING)
    prepare_folder(folder)
    started = time.monotonic()
    splits = _prepared(with_recorded_precision(job, folder), as_json)
    warnings = [*warned(data_warnings(splits))]
    collector = {tracing.ENDPOINT: job.log.otlp} if job.log.otlp else {}
    with closing(RunLog(splits.job, folder)) as log, ProcessGroup(folder / "logs", collector) as group:
        with _view(splits.job) as view:
            address = launch.start_ptm(group, splits.job, folder, view.note)
            may = splits.job.ptm.send_labels
            with open_ptm(address=address, revision=splits.job.ptm.revision, send_labels=may) as ptm:
                card = ptm.describe()
                revision = card.revision
                view.note(f"the model computes in {card.precision}" if card.precision else "the service answers")
                splits = replace(splits, job=with_precision(splits.job, card.precision)).completed_by(ptm)
                check_prompt(splits.job, splits.test, ptm)
                warnings += warned(model_warnings(splits, ptm))
                if not (folder / STORE).exists():
                    _forecast(splits, ptm, view)

                def watch(news: RunNews) -> None:
                    members = news.status.members
                    view.note(f"{news.status.state}, {sum(member.connected for member in members)} clients connected")
                    view.add(news.reports)
                    log.tell(news.status.run_id, news.reports, news.events)

                def listening(coordinator: str) -> None:
                    if dashboard:
                        start_dashboard(group, folder, coordinator, view.say)

                result, reports = launch.run_federation(
                    group, splits, folder, address, revision, view.note, watch, listening
                )
        with open_ptm(address=address, revision=revision, send_labels=may) as ptm:
            _finish(splits, ptm, result, reports, warnings, folder, started, as_json, log)
    if dashboard and not as_json:
        out.print(f"  fedbbpt dashboard {folder}", highlight=False)


def _forecast(splits: Splits, ptm: Ptm, view: RunView) -> None:
    """Says what a new run will use. A run is never lost because its forecast fails."""
    view.note("rehearsing the run")
    assert isinstance(ptm, RemotePtm), "the run's clients ask a service"
    try:
        account = ptm.statement()
        # Whoever runs the job has the model, unless it names a service, whose queries may cost something.
        rate = rate_of(account.usage) if splits.job.ptm.address else measured_rate(ptm, splits)
        found = rehearsed(splits, RehearsalPtm(ptm, splits), account.left, rate, REHEARSAL_SECONDS)
    except FedbbptError as error:
        view.say(f"no forecast: {error}")
        return
    for line in forecast_lines(found):
        view.say(line)
    for warning in found.warnings:
        view.say(f"warning: {warning}", style="yellow")


def _view(job: Job) -> RunView:
    title = f"{job.run.name}: {job.method.name}, {job.cohort.clients} clients, {job.ptm.model}"
    return RunView(err, title, job.run.rounds)


def _finish(
    splits: Splits,
    ptm: Ptm,
    result: Result,
    reports: tuple[Report, ...],
    warnings: Sequence[DataWarning],
    folder: Path,
    started: float,
    as_json: bool,
    log: RunLog,
) -> None:
    """Measures the result on the test examples, writes the folder and shows the summary."""
    seconds = time.monotonic() - started
    total = cost(splits.job.space(), compared_data(splits))
    with progress("measuring on the test examples", total, "queries") as advance:
        finished = finish_run(splits, ptm, result, reports, seconds, advance, warnings)
    finished.write(folder)
    log.end(finished.summary())
    if as_json:
        show(finished.summary(), as_json=True)
        return
    out.print(accuracies(finished.comparison))
    out.print(results(finished))
    out.print(f"{folder}/ holds the prompt, its card, the summary and the metrics. Try it:", style="dim")
    given = '--text "..."' if splits.test.examples.kind is ExampleKind.TEXTS else "--images FILE.npz"
    out.print(f"  fedbbpt predict --prompt {folder / PROMPT} {given}", highlight=False)
