"""The command `coordinator serve`: runs a job with the clients that join."""

import asyncio
import logging
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import Listening, with_bundles
from fedbbpt.cli.terminal.logs import Logging
from fedbbpt.cli.terminal.reloading import Reloading, on_loop
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.errors import InvalidInput, InvalidJob, NoResultYet
from fedbbpt.federation import assemble
from fedbbpt.federation.prompt_file import write_prompt
from fedbbpt.federation.run_folder import BACKUPS, PROMPT, STORE, prompt_card
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.settings import run_settings, task_spec
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.service import serve
from fedbbpt.types import OWNER, PrecisionChoice
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.traffic import TrafficMeter

log = logging.getLogger(__name__)


@with_bundles
def coordinator_serve(
    job_file: options.JobFile,
    listening: Listening,
    logs: Logging,
    store: Annotated[
        Path, typer.Option(metavar="FILE", help="The run's database. An unfinished run in it continues.")
    ] = Path(STORE),
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
) -> None:
    """Run a job with the clients that join, and end when the run is finished.

    A coordinator that was killed continues with the same round when you give the same command again.

    Example: fedbbpt coordinator serve job.toml --port 7000 --ptm ptm.example.org:7001
    """
    logs.start()
    if ptm:
        parse_address(ptm, "--ptm")
    job = _with_task(read_job(job_file), job_file)
    if job.definition().white_box != (auxiliary is not None):
        what = f"{job.method.name} needs {'an' if auxiliary is None else 'no'} auxiliary model"
        fix = "the file that `fedbbpt owner auxiliary` wrote" if auxiliary is None else "leave the option out"
        raise InvalidInput(what, where="--auxiliary", fix=fix)
    asyncio.run(_coordinate(job, store, ptm or job.ptm.address, ptm_revision, auxiliary, listening))


def _with_task(job: Job, path: Path) -> Job:
    """Returns the job with its preset's task. Raises InvalidJob if only data could complete the task."""
    try:
        job = with_preset(job)
        task_spec(job)
    except InvalidJob as error:
        raise InvalidJob(error.what, where=str(path), fix=error.fix) from None
    return job


async def _coordinate(
    job: Job, store_path: Path, ptm_address: str, ptm_revision: str, auxiliary: Path | None, listening: Listening
) -> None:
    # SQLAlchemy would slow the start of every other command.
    from fedbbpt.server.stores.rows import RunRecord
    from fedbbpt.server.stores.sqlite import SqliteStore

    # Random, so that a client never mistakes what it kept from an earlier run of the same job for this one's.
    run_id = f"{job.run.name}-{secrets.token_hex(4)}"
    record = RunRecord(run_id, job.run.seed, job.digest(ptm_revision), datetime.now(UTC).isoformat())
    watched = Reloading(listening.files())
    tls, tokens = listening.tls(), listening.tokens()
    store, traffic = SqliteStore(store_path, record), TrafficMeter()
    try:
        model = assemble.announced_auxiliary(auxiliary) if auxiliary else None
        settings = run_settings(job, store.run.run_id, ptm_address, ptm_revision, model)
        run = assemble.coordinator(job, settings, store, traffic.read)
        serving = await serve(
            run,
            traffic,
            listening.host,
            listening.port,
            tls=tls,
            tokens=tokens,
            insecure=listening.insecure,
            auxiliary=auxiliary,
            backups=store_path.parent / BACKUPS,
        )
        announce(f"coordinator of {store.run.run_id}", listening.host, serving.port, listening.address_file)

        async def finish() -> None:
            await serving.ended
            _write_result(job, run, store_path.with_name(PROMPT))

        async def reload() -> None:
            serving.reload(listening.tokens())

        with watched.by(on_loop(reload)):
            await until_done(serving.stop, asyncio.create_task(finish()))
    finally:
        store.close()


def _write_result(job: Job, run: Coordinator, path: Path) -> None:
    try:
        result, status, settings = run.result(), run.status(), run.settings
    except NoResultYet as error:
        log.warning("%s", error)
        return
    owner = OWNER if job.definition().owner_takes_part(job.method) else None
    examples = sum(member.examples for member in status.members if member.client_id != owner)
    precision = "" if job.ptm.precision is PrecisionChoice.AUTO else job.ptm.precision
    card = prompt_card(job, settings.ptm_revision, precision, examples, result, status.queries)
    write_prompt(path, result.z, card)
    print(f"the prompt is in {path}", flush=True)
