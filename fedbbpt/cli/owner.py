"""Commands of the model's owner in fed-sp: `owner auxiliary` and `owner join`."""

import logging
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedbbpt.cli.client import PAUSE_SECONDS
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, CoordinatorAccess, with_bundles
from fedbbpt.cli.terminal.console import show
from fedbbpt.cli.terminal.logs import Logging, log_to_stderr
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.data.examples import label, read, read_table
from fedbbpt.federation import assemble
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.host.progress import progress
from fedbbpt.job.config import read_job
from fedbbpt.types import OWNER, Examples, LabelledExamples
from fedbbpt.wire import tracing

log = logging.getLogger(__name__)


@with_bundles
def owner_auxiliary(
    job_file: options.JobFile,
    names: ColumnNames,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Examples to distil on. By default the model writes its own texts.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")] = Path(AUXILIARY),
) -> None:
    """Distil the small model that clients train from the job's full model.

    Example: fedbbpt owner auxiliary job.toml --data shard.jsonl --out auxiliary.safetensors
    """
    log_to_stderr(logging.INFO)
    job = with_preset(read_job(job_file))
    nothing = LabelledExamples(Examples(), np.zeros(0, np.int64))
    shard = read(data, job.task.labels, names.columns()) if data else nothing
    with progress(f"distilling {job.ptm.model}"):
        assemble.make_auxiliary(job, shard, out)
    print(f"the auxiliary model is in {out}, {out.stat().st_size} bytes", flush=True)


@with_bundles
def owner_join(
    access: CoordinatorAccess,
    model: Annotated[str, typer.Option(help="The full model: a local folder, or a Hugging Face name.")],
    data: Annotated[
        str, typer.Option(metavar="PATH", help="The owner's examples: JSONL, CSV, Parquet, or a Hugging Face name.")
    ],
    names: ColumnNames,
    logs: Logging,
    run: options.RunName = "",
    state: Annotated[Path, typer.Option(metavar="DIR", help="The folder for what outlives a crash.")] = Path(".fedbbpt")
    / OWNER,
    json: options.Json = False,
) -> None:
    """Tune the prompt through the full model, after each average of the clients' prompts.

    An owner that was killed continues when you give the same command again.

    Example: fedbbpt owner join --coordinator hub.example.org:7000 --model gpt2-xl --data shard.jsonl --tls-ca ca.pem
    """
    logs.start()
    tracing.start("owner")
    watched = Reloading(access.files())
    keepsake, table = Keepsake(state), read_table(data, names.columns())
    with access.connect() as channel:
        link = RemoteCoordinator(channel, run=run)
        settings = assemble.join(link, assemble.hello(OWNER, keepsake.client_key(), len(table.labels)))
        agent = assemble.owner(settings, label(table, settings.labels), model, keepsake=keepsake)
        log.info("joined %s as the model's owner with %d examples", settings.run_id, len(table.labels))
        with watched.by(channel.renew):
            counted = agent.run(link, lambda: time.sleep(PAUSE_SECONDS))
    show({"run": settings.run_id, "client": OWNER, "updates": counted}, json, title="finished")
