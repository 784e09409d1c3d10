"""`coordinator serve` and `client join`: a federation started by hand."""

import asyncio
import logging
import secrets
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import log_to_stderr, show
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.data.examples import Columns
from fedbbpt.errors import InvalidInput, InvalidJob, NoResultYet
from fedbbpt.federation import assemble
from fedbbpt.federation.client_data import ClientData
from fedbbpt.federation.prompt_file import write_prompt
from fedbbpt.federation.run_folder import PROMPT, STORE, prompt_card
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.settings import run_settings, task_spec
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.service import serve as serve_coordinator
from fedbbpt.server.store import RunRecord, SqliteStore
from fedbbpt.types import OWNER
from fedbbpt.wire.channel import PTM_KEEPALIVE_SECONDS, connect
from fedbbpt.wire.tls import ServerTls
from fedbbpt.wire.traffic import TrafficMeter

log = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
"""Time between two attempts to query a PTM that is unavailable."""

coordinator = typer.Typer(no_args_is_help=True, help="The meeting point of a run's clients; sees no data.")
client = typer.Typer(
    no_args_is_help=True, help="An organisation's part: private data, a search, a share in the prompt."
)


@coordinator.command("serve")
def coordinator_serve(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job; `fedbbpt init` writes one.")],
    store: Annotated[Path, typer.Option(help="The run's database; with an unfinished run in it, that goes on.")] = Path(
        STORE
    ),
    ptm: Annotated[str, typer.Option(metavar="HOST:PORT,...", help="The PTM service that clients are told of.")] = "",
    ptm_revision: Annotated[str, typer.Option(help="The only revision of the PTM that clients may use.")] = "",
    auxiliary: Annotated[
        Path | None, typer.Option(help="The auxiliary model that clients get; `fedbbpt owner auxiliary` makes it.")
    ] = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 0,
    address_file: options.AddressFile = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    token_file: options.Tokens = None,
    insecure: options.Insecure = False,
) -> None:
    """Run a job with the clients that join, and end when it is finished.

    Killed and started again with the same command, it goes on with the same round.

    Example: fedbbpt coordinator serve job.toml --port 7000 --ptm ptm.example.org:7001
    """
    log_to_stderr(logging.INFO)
    tls, tokens = options.server_tls(tls_cert, tls_key, tls_client_ca), options.read_tokens(token_file)
    job = _with_task(read_job(job_file), job_file)
    if job.entry().white_box != (auxiliary is not None):
        fix = "a file, which fed-sp needs" if auxiliary is None else f"none, since {job.method.name} needs none"
        raise InvalidInput("no file" if auxiliary is None else str(auxiliary), where="--auxiliary", fix=fix)
    address = ptm or job.ptm.address
    asyncio.run(
        _coordinate(job, store, address, ptm_revision, auxiliary, host, port, address_file, tls, tokens, insecure)
    )


def _with_task(job: Job, path: Path) -> Job:
    """The job with its preset written out. Raises InvalidJob if its task needs data to be complete."""
    try:
        job = with_preset(job)
        task_spec(job)
    except InvalidJob as error:
        raise InvalidJob(error.what, where=str(path), fix=error.fix) from None
    return job


async def _coordinate(
    job: Job,
    store_path: Path,
    ptm_address: str,
    ptm_revision: str,
    auxiliary: Path | None,
    host: str,
    port: int,
    address_file: Path | None,
    tls: ServerTls | None,
    tokens: list[str],
    insecure: bool,
) -> None:
    # A random part, so that files that clients kept from an earlier run of this job are never taken for this run's.
    run_id = f"{job.run.name}-{secrets.token_hex(4)}"
    record = RunRecord(run_id, job.run.seed, job.digest(ptm_revision), datetime.now(UTC).isoformat())
    store, traffic = SqliteStore(store_path, record), TrafficMeter()
    try:
        model = assemble.announced_auxiliary(auxiliary) if auxiliary else None
        settings = run_settings(job, store.run.run_id, ptm_address, ptm_revision, model)
        run = assemble.coordinator(job, settings, store, traffic.read)
        serving = await serve_coordinator(
            run, traffic, host, port, tls=tls, tokens=tokens, insecure=insecure, auxiliary=auxiliary
        )
        announce(f"coordinator of {store.run.run_id}", host, serving.port, address_file)
        await until_done(serving.stop, serving.ended)
        if run.state.ended:
            _write_result(job, run, store_path.with_name(PROMPT))
    finally:
        store.close()


def _write_result(job: Job, run: Coordinator, path: Path) -> None:
    try:
        result, status, settings = run.result(), run.status(), run.settings
    except NoResultYet as error:
        log.warning("%s", error)
        return
    owner = OWNER if job.entry().owner_takes_part(job.method) else None
    examples = sum(member.examples for member in status.members if member.client_id != owner)
    write_prompt(
        path, result.z, prompt_card(job, job.ptm.model, settings.ptm_revision, examples, result, status.queries)
    )
    print(f"the prompt is in {path}", flush=True)


@client.command("join")
def client_join(
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator.")],
    data: Annotated[
        str, typer.Option(help="Training examples: JSONL, CSV, Parquet, .npz of images, or a Hugging Face name.")
    ],
    dev: Annotated[str, typer.Option(help="Examples to measure prompts on; without them, a quarter of --data.")] = "",
    ptm: options.Ptm = "",
    name: Annotated[str, typer.Option(help="This client's id; the data file's name if left out.")] = "",
    state: Annotated[
        Path | None, typer.Option(help="A folder for what outlives a crash; .fedbbpt/NAME if left out.")
    ] = None,
    one_class: Annotated[bool, typer.Option("--one-class", help="Take data of a single class: it is so here.")] = False,
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = "text_pair",
    label_column: options.LabelColumn = "label",
    tls_ca: options.TlsCa = None,
    client_cert: options.ClientCert = None,
    client_key: options.ClientKey = None,
    token_file: options.Token = None,
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_client_cert: options.PtmClientCert = None,
    ptm_client_key: options.PtmClientKey = None,
    ptm_token_file: options.PtmToken = None,
    json: options.Json = False,
) -> None:
    """Take part in a run with private data. The data stay here; inputs, without labels, go to the PTM service.

    Killed and started again with the same command, it goes on where it was.

    Example: fedbbpt client join --coordinator hub.example.org:7000 --data ours.jsonl --tls-ca ca.pem
    """
    log_to_stderr(logging.INFO)
    name = name or Path(data).name.split(".")[0]
    columns = Columns(text_column, pair_column, label_column)
    folder = state or Path(".fedbbpt") / name
    keepsake = Keepsake(folder)
    tls = options.client_tls(tls_ca, client_cert, client_key)
    with connect(coordinator, tls, options.read_token(token_file)) as channel:
        link = RemoteCoordinator(channel)
        local = ClientData(data, dev, columns)
        settings = link.join(assemble.hello(name, keepsake.client_key(), local.train_size))
        train_examples, dev_examples = local.labelled(settings.labels, one_class=one_class)
        address = ptm or settings.ptm_address
        if not address:
            what = "neither the coordinator nor this client knows the address of the PTM"
            raise InvalidInput(what, where="--ptm", fix="--ptm HOST:PORT")
        ptm_token = options.read_token(ptm_token_file)
        ptm_tls = options.client_tls(ptm_tls_ca, ptm_client_cert, ptm_client_key, ptm=True)
        with connect(address, ptm_tls, ptm_token, keepalive_seconds=PTM_KEEPALIVE_SECONDS) as ptm_channel:
            service = RemotePtm(ptm_channel, settings.ptm_revision)
            fetch = partial(link.fetch_auxiliary, folder=folder)
            agent = assemble.client(
                settings, train_examples, dev_examples, service, keepsake=keepsake, fetch_auxiliary=fetch
            )
            log.info("joined %s as %s with %d examples", settings.run_id, name, local.train_size)
            counted = agent.run(link, lambda: time.sleep(PAUSE_SECONDS))
    result = {"run": settings.run_id, "client": name, "updates": counted, "queries": agent.queries}
    show(result, json, title="finished")
