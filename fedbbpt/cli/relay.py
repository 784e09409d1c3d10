"""The command `relay serve`: one client of a coordinator, which sums the updates of its own site's clients."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, Listening, with_bundles
from fedbbpt.cli.terminal.logs import Logging
from fedbbpt.cli.terminal.reloading import Reloading, on_loop
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation.relay.names import NAMES, SiteNames
from fedbbpt.federation.relay.relay import Relay
from fedbbpt.identity.names import check_name
from fedbbpt.server.remote import RemoteRun
from fedbbpt.server.service import serve
from fedbbpt.wire import tracing
from fedbbpt.wire.renewed_channel import RenewedChannel


@with_bundles
def relay_serve(
    access: CoordinatorAccess,
    listening: Listening,
    logs: Logging,
    min_clients: Annotated[
        int, typer.Option(min=1, help="The number of clients to wait for before the relay joins the run above.")
    ],
    run: options.RunName = "",
    name: Annotated[str, typer.Option(help="The site's id in the run. By default relay with a random end.")] = "",
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder for the relay's key and its clients' names; .fedbbpt/NAME by default."
        ),
    ] = None,
) -> None:
    """Sum the updates of a site's clients, and take part in a run above as one client.

    Clients join the relay as they would join a coordinator. A relay that was killed continues when you give the same
    command again, with a fixed --port.

    Example: fedbbpt relay serve --coordinator hub.example.org:7000 --name north --min-clients 4 --port 7000
    """
    logs.start()
    tracing.start("relay")
    if name:
        check_name(name, "--name")
    folder = state or Path(".fedbbpt") / (name or "relay")
    keepsake, names = Keepsake(folder), SiteNames(folder / NAMES)
    with access.connect() as channel:
        site = name or keepsake.client_name("relay")
        asyncio.run(_serve(access, channel, listening, run, site, keepsake.client_key(), min_clients, names))


async def _serve(
    access: CoordinatorAccess,
    channel: RenewedChannel,
    listening: Listening,
    run: str,
    site: str,
    key: str,
    min_clients: int,
    names: SiteNames,
) -> None:
    link = RemoteCoordinator(channel, run=run, submits_apart=True)
    relay = Relay(link, lambda found: RemoteRun(channel, found), site, key, min_clients, names)
    watched = Reloading([*access.files(), *listening.files()])
    serving = await serve(
        relay.runs,
        listening.host,
        listening.port,
        tls=listening.tls(),
        tokens=listening.members(),
        insecure=listening.insecure,
        before_join=relay.admit,
    )
    relay.look_above()
    announce(f"relay {site}", listening.host, serving.port, listening.address_file)

    async def reload() -> None:
        channel.renew()
        serving.reload(listening.members())

    async def ended() -> None:
        await relay.ended

    with watched.by(on_loop(reload)):
        await until_done(serving.stop, asyncio.create_task(ended()))
