"""The model's owner in white-box methods: `owner auxiliary`, `owner join`."""

import logging
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedbbpt.cli.roles import PAUSE_SECONDS
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, log_to_stderr, show
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.data.examples import Columns, label, read, read_table
from fedbbpt.federation import assemble
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.job.config import read_job
from fedbbpt.types import OWNER, Examples, LabelledExamples
from fedbbpt.wire.channel import connect

log = logging.getLogger(__name__)

owner = typer.Typer(
    no_args_is_help=True, help="The part of the model's owner in fed-sp: the auxiliary model, and its own tuning."
)


@owner.command("auxiliary")
def owner_auxiliary(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job; `fedbbpt init` writes one.")],
    data: Annotated[str, typer.Option(help="What to distil on; without it, texts of the model's own.")] = "",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(AUXILIARY),
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = "text_pair",
    label_column: options.LabelColumn = "label",
) -> None:
    """Make the small model that clients train, from the job's full model, by distillation.

    Example: fedbbpt owner auxiliary job.toml --data shard.jsonl --out auxiliary.safetensors
    """
    log_to_stderr(logging.INFO)
    job = with_preset(read_job(job_file))
    columns = Columns(text_column, pair_column, label_column)
    shard = read(data, job.task.labels, columns) if data else LabelledExamples(Examples(), np.zeros(0, np.int64))
    with err.status(f"distilling {job.ptm.model}"):
        assemble.make_auxiliary(job, shard, out)
    print(f"the auxiliary model is in {out}, {out.stat().st_size} bytes", flush=True)


@owner.command("join")
def owner_join(
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator.")],
    model: Annotated[str, typer.Option(help="The full model: a local folder, or a Hugging Face name.")],
    data: Annotated[str, typer.Option(help="The owner's examples: JSONL, CSV, Parquet, or a Hugging Face name.")],
    state: Annotated[Path, typer.Option(help="A folder for what outlives a crash.")] = Path(".fedbbpt") / OWNER,
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = "text_pair",
    label_column: options.LabelColumn = "label",
    tls_ca: options.TlsCa = None,
    client_cert: options.ClientCert = None,
    client_key: options.ClientKey = None,
    token_file: options.Token = None,
    json: options.Json = False,
) -> None:
    """Tune the prompt through the full model, after each average of the clients' prompts.

    Killed and started again with the same command, it goes on where it was.

    Example: fedbbpt owner join --coordinator hub.example.org:7000 --model gpt2-xl --data shard.jsonl --tls-ca ca.pem
    """
    log_to_stderr(logging.INFO)
    keepsake, table = Keepsake(state), read_table(data, Columns(text_column, pair_column, label_column))
    tls = options.client_tls(tls_ca, client_cert, client_key)
    with connect(coordinator, tls, options.read_token(token_file)) as channel:
        link = RemoteCoordinator(channel)
        settings = link.join(assemble.hello(OWNER, keepsake.client_key(), len(table.labels)))
        agent = assemble.owner(settings, label(table, settings.labels), model, keepsake=keepsake)
        log.info("joined %s as the model's owner with %d examples", settings.run_id, len(table.labels))
        counted = agent.run(link, lambda: time.sleep(PAUSE_SECONDS))
    show({"run": settings.run_id, "client": OWNER, "updates": counted}, json, title="finished")
