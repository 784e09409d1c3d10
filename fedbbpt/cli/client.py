"""The command `client join`: takes part in a run with private data."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, CoordinatorAccess, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import show, warned
from fedbbpt.cli.terminal.logs import Logging
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.data.quality import cut_texts, review
from fedbbpt.errors import (
    DeadlineExceeded,
    InvalidInput,
    LabelsWithheld,
    PtmNotAccepted,
    Unauthenticated,
    Unavailable,
)
from fedbbpt.federation import assemble
from fedbbpt.federation.client_data import ClientData
from fedbbpt.federation.fetched_result import save_result
from fedbbpt.identity.names import name_from
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import PtmIdentity
from fedbbpt.wire import tracing
from fedbbpt.wire.addresses import is_loopback, parse_address
from fedbbpt.wire.peers import PTM

log = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
"""Pause between two attempts to reach a PTM service that is down."""


@with_bundles
def client_join(
    access: CoordinatorAccess,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Training examples: JSONL, CSV, Parquet, .npz of images, or a Hugging Face name."
        ),
    ],
    service: PtmAccess,
    names: ColumnNames,
    logs: Logging,
    dev: Annotated[
        str, typer.Option(metavar="PATH", help="Examples to measure prompts on. By default a quarter of --data.")
    ] = "",
    run: options.RunName = "",
    name: Annotated[
        str,
        typer.Option(
            help="This client's id in the run. By default that of --client-cert, or the data file's with a random end."
        ),
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder for what outlives a crash. By default .fedbbpt/NAME."),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The file for the tuned prompt when the run has ended.", show_default=False
        ),
    ] = None,
    accept_ptm: Annotated[
        bool,
        typer.Option(
            "--accept-ptm",
            help="Send the inputs to the PTM service that the coordinator names, wherever it is.",
            rich_help_panel=options.SECURITY,
        ),
    ] = False,
    send_labels: options.SendLabels = False,
    require_secure: Annotated[
        bool,
        typer.Option(
            "--require-secure",
            help="Take part only if secure aggregation hides this client's updates from the coordinator.",
            rich_help_panel=options.SECURITY,
        ),
    ] = False,
    one_class: Annotated[
        bool, typer.Option("--one-class", help="Accept data of a single class, which is usually a mistake.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Take part in a run with private data. Inputs go to the PTM service at --ptm; labels stay here.

    A client that was killed continues when you give the same command again.

    Example: fedbbpt client join --coordinator hub.example.org:7000 --data ours.jsonl --ptm ptm.example.org:7001
    """
    logs.start()
    tracing.start("client")
    watched = Reloading([*access.files(), *service.files()])
    stem = name_from(Path(data).name.split(".")[0])
    name = name or access.own_name()
    folder = state or Path(".fedbbpt") / (name or stem)
    keepsake = Keepsake(folder)
    name = name or keepsake.client_name(stem)
    with access.connect() as channel:
        link = RemoteCoordinator(channel, run=run)
        local = ClientData(data, dev, names.columns())
        hello = assemble.hello(name, keepsake.client_key(), local.train_size)
        settings = assemble.join(link, hello, require_secure=require_secure)
        with _told(link):
            address = service.ptm or announced_ptm(settings.ptm_address, access.coordinator, accepted=accept_ptm)
        train, dev_examples = local.labelled(settings.labels, one_class=one_class)
        with service.connect(address) as ptm_channel:
            pinned = _revision(service.revision, settings.ptm_revision)
            ptm = RemotePtm(ptm_channel, pinned, send_labels=send_labels)
            fetch = partial(link.fetch_auxiliary, folder=folder)
            with _told(link):
                agent = assemble.client(settings, train, dev_examples, ptm, keepsake=keepsake, fetch_auxiliary=fetch)
                card = ptm.describe()
            asked = PtmIdentity(card.model, card.revision, card.precision)
            link.report_ptm(asked)
            cut = cut_texts(agent.truncation, len(train) + len(dev_examples), card.max_tokens)
            warnings = warned([*review({"train": train, "dev": dev_examples}, settings.labels), *cut])
            log.info("joined %s as %s with %d examples", settings.run_id, name, local.train_size)

            def reload() -> None:
                channel.renew()
                ptm_channel.renew()

            with watched.by(reload):
                counted = agent.run(link, lambda: time.sleep(PAUSE_SECONDS))
        if out_file is not None:
            save_result(RemoteRun(channel, link.run_name), out_file, asked)
    result = {"run": settings.run_id, "client": name, "updates": counted, "queries": agent.queries}
    if out_file is not None:
        result["out"] = str(out_file)
    if json:
        show(result | {"warnings": list(map(asdict, warnings))}, as_json=True)
    else:
        show(result, as_json=False, title="finished")


@contextmanager
def _told(link: RemoteCoordinator) -> Iterator[None]:
    """Tells the coordinator why this client cannot begin, if the PTM service is the reason."""
    try:
        yield
    except (Unavailable, Unauthenticated, DeadlineExceeded, LabelsWithheld, PtmNotAccepted) as error:
        link.report_trouble(f"{type(error).__name__}: {error}")
        raise


def announced_ptm(announced: str, coordinator: str, *, accepted: bool) -> str:
    """Returns the address of the PTM service that the coordinator names, if this client's inputs may go there.

    They may if the user says so, or if coordinator and service are both on this machine.

    Args:
        announced: The address that the coordinator names, or "".
        coordinator: The coordinator's address.
        accepted: Whether the user accepts whatever address the coordinator names.

    Raises:
        InvalidInput: The coordinator names no address, or something else.
        PtmNotAccepted: The inputs may not go there.
    """
    if not announced:
        what = "neither the coordinator nor this client knows the address of the PTM"
        raise InvalidInput(what, where=PTM.option, fix=f"{PTM.option} HOST:PORT")
    servers = [*parse_address(announced, "the coordinator's address of the PTM service").servers]
    local = all(is_loopback(server.host) for server in [*servers, *parse_address(coordinator).servers])
    if not accepted and not local:
        what = f"the coordinator wants this client's inputs at {announced}"
        fix = f"{PTM.option} {announced} if you know this service, or --accept-ptm for any that the coordinator names"
        raise PtmNotAccepted(what, where=PTM.option, fix=fix)
    return announced


def _revision(own: str, of_run: str) -> str:
    """Returns the only revision of the PTM to ask: the client's own choice, or that of the run.

    Raises:
        InvalidInput: They differ.
    """
    if own and of_run and own != of_run:
        what = f"the run wants revision {of_run} of the PTM, and this client's --ptms names {own}"
        raise InvalidInput(what, where="revision", fix="the same revision in both, if you trust it")
    return own or of_run
