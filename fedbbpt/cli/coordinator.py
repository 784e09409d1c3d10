"""The command `coordinator serve`: runs a job with the clients that join, or many runs that operators submit."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbbpt.cli.terminal.bundles import Admitting, MetricsPage, with_bundles
from fedbbpt.cli.terminal.logs import Logging
from fedbbpt.cli.terminal.reloading import Reloading, on_loop
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.run_folder import STORE
from fedbbpt.federation.served_runs import OpenRun, RunFolders, complete_job, open_run
from fedbbpt.host.allocator import share_one_arena
from fedbbpt.host.audit import AuditLog
from fedbbpt.job.config import read_job
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import serve
from fedbbpt.server.stores.opening import watch_store
from fedbbpt.server.stores.sql import SqlStore
from fedbbpt.types import NewRun
from fedbbpt.wire import tracing
from fedbbpt.wire.addresses import parse_address

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@with_bundles
def coordinator_serve(
    listening: Admitting,
    logs: Logging,
    page: MetricsPage,
    job_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[JOB.toml]",
            help="The job file. `fedbbpt init` writes one. Without it, --state.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder of many runs, which `fedbbpt runs submit` begins.", show_default=False
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The job's database, or postgresql://USER@HOST/DATABASE. An unfinished run in it continues.",
        ),
    ] = STORE,
    standby: Annotated[
        bool,
        typer.Option("--standby", help="Wait while another coordinator has the database, and take over when it ends."),
    ] = False,
    ptm: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", help="The PTM service that the coordinator names to clients.")
    ] = "",
    ptm_revision: Annotated[str, typer.Option(help="The only revision of the PTM that clients may use.")] = "",
    auxiliary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The auxiliary model for clients of fed-sp. `fedbbpt owner auxiliary` makes it."
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The audit log: joins, evictions, refusals, removals, stops, and the privacy budget spent.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a job with the clients that join, and end when the run is finished; or, with --state, serve many runs.

    A coordinator that was killed continues with the same rounds when you give the same command again.

    Example: fedbbpt coordinator serve job.toml --port 7000 --ptm ptm.example.org:7001
    """
    logs.start()
    share_one_arena()
    if (job_file is None) == (state is None):
        what = "a job, or a folder of many runs" + ("" if job_file is None else ", and not both")
        raise InvalidInput(what, where="JOB.toml, --state", fix="one of them")
    if ptm:
        parse_address(ptm, "--ptm")
    if state is not None:
        tracing.start("coordinator")
        if standby:
            raise InvalidInput("many runs have no standby", where="--standby, --state", fix="a job with --store")
        if ptm or ptm_revision or auxiliary:
            what = "each of many runs has its own"
            raise InvalidInput(what, where="--ptm, --ptm-revision, --auxiliary", fix="`fedbbpt runs submit` with them")
        asyncio.run(_serve_many(state, audit, listening, page))
        return
    assert job_file is not None, "there is a folder otherwise"
    job = complete_job(read_job(job_file), str(job_file))
    if job.definition().white_box != (auxiliary is not None):
        what = f"{job.method.name} needs {'an' if auxiliary is None else 'no'} auxiliary model"
        fix = "the file that `fedbbpt owner auxiliary` wrote" if auxiliary is None else "leave the option out"
        raise InvalidInput(what, where="--auxiliary", fix=fix)
    tracing.start("coordinator", job.log.otlp)
    request = NewRun(job.run.name, "", ptm, ptm_revision)
    records = AuditLog(audit, about="client")
    try:
        opened = open_run(job, store, request, standby=standby, auxiliary=auxiliary, audit=records.append)
        try:
            asyncio.run(_serve_job(opened, listening, page))
        finally:
            opened.close()
    finally:
        records.close()


async def _serve_job(opened: OpenRun, listening: Admitting, page: MetricsPage) -> None:
    role = f"coordinator of {opened.live.coordinator.settings.run_id}"
    await _serve(Runs([opened.live]), listening, page, role, store=opened.store)


async def _serve_many(folder: Path, audit: Path | None, listening: Admitting, page: MetricsPage) -> None:
    records = AuditLog(audit, about="client")
    folders = RunFolders(folder, records.append)
    try:
        runs = Runs(folders.runs, folders, folders.broken)
        await _serve(runs, listening, page, f"coordinator of {len(folders.runs)} runs")
    finally:
        folders.close()
        records.close()


async def _serve(
    runs: Runs,
    listening: Admitting,
    page: MetricsPage,
    role: str,
    store: SqlStore | None = None,
) -> None:
    """Serves the runs until a signal comes; with the store of the only one, until that has ended."""
    watched = Reloading(listening.files())
    serving = await serve(
        runs,
        listening.host,
        listening.port,
        tls=listening.tls(),
        tokens=listening.members(),
        authority=listening.opened_authority(),
        enrol_port=listening.enrol_port,
        insecure=listening.insecure,
    )

    def registry() -> "CollectorRegistry":
        from fedbbpt.server.metrics import coordinator_registry  # most coordinators have no page of metrics

        return coordinator_registry(runs)

    stop_metrics = page.serve(registry)
    announce(role, listening.host, serving.port, listening.address_file)
    if serving.enrolment is not None:
        announce("enrolment", listening.host, serving.enrolment.port, None)

    async def reload() -> None:
        serving.reload(listening.members())

    try:
        with watched.by(on_loop(reload)):
            await until_done(serving.stop, asyncio.create_task(_first(serving.ended, store)) if store else None)
    finally:
        await asyncio.to_thread(stop_metrics)  # a reader may wait for this event loop


async def _first(ended: "asyncio.Task[None]", store: SqlStore) -> None:
    """Waits until the run has ended, or its store belongs to another coordinator. Raises the error of either."""
    watching = asyncio.create_task(watch_store(store))
    try:
        done, _ = await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        watching.cancel()
