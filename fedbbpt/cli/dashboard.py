"""The command `dashboard`: a web page of the runs of a coordinator, and of past runs in a folder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbbpt.cli.terminal.bundles import CoordinatorAccess, Listening, PtmAccess, with_bundles
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.cli.terminal.serving import serve_web
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.run_folder import METRICS, STORE
from fedbbpt.host.extras import needs_extra
from fedbbpt.identity.roles import WATCHERS
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.remote import RemoteRuns
from fedbbpt.types import FREE, Price

if TYPE_CHECKING:
    from fedbbpt.web.dashboard.app import Sources


@dataclass(frozen=True, slots=True)
class WatchedCoordinator(CoordinatorAccess):
    """The coordinator whose runs are shown, if there is one."""

    coordinator: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The coordinator's address, or those of it and of its standby, separated by commas.",
            show_default=False,
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput if the address is not one."""
        if self.coordinator:
            CoordinatorAccess.__post_init__(self)


@with_bundles
def dashboard(
    access: WatchedCoordinator,
    listening: Listening,
    ptm: PtmAccess,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="The folder of a run, or of many, whose past runs are shown.", show_default=False
        ),
    ] = None,
) -> None:
    """Show the runs of a coordinator, or past runs in a folder, on a web page.

    The page needs the packages of `pip install 'fedbbpt[web]'`, and loads nothing from elsewhere.

    Example: fedbbpt dashboard --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    if not access.coordinator and folder is None:
        fix = "--coordinator HOST:PORT, the folder of past runs, or both"
        raise InvalidInput("nothing to show", where="--coordinator, FOLDER", fix=fix)
    with needs_extra("web", where="dashboard"):
        from fedbbpt.web.dashboard.app import OPEN_PATHS, SIGN_IN, dashboard, end
        from fedbbpt.web.serving import WebAddress, WebServer
    watched = Reloading(listening.files())
    members = listening.members()
    sources = _sources(access, ptm, folder, signs_in=members is not None)
    address = WebAddress(listening.host, listening.port, listening.tls(), listening.insecure)
    server = WebServer(
        dashboard(sources),
        address,
        tokens=members,
        roles=WATCHERS,
        sign_in=SIGN_IN if members is not None else "",
        open_paths=OPEN_PATHS,
        before_end=lambda: end(sources),
    )
    serve_web("dashboard", server, listening, watched)


def _sources(access: CoordinatorAccess, ptm: PtmAccess, folder: Path | None, *, signs_in: bool) -> "Sources":
    from fedbbpt.web.dashboard.app import Sources
    from fedbbpt.web.dashboard.live_runs import LiveRuns
    from fedbbpt.web.dashboard.run_folders import RunFolders

    past = None if folder is None else RunFolders(folder)
    named = "" if folder is None else str(folder)
    if not access.coordinator:
        return Sources(past=past, folder=named, signs_in=signs_in)
    own = folder is not None and any((folder / file).exists() for file in (STORE, METRICS))
    live = LiveRuns(RemoteRuns(access.connect()), _price(ptm), measured_later=own)
    return Sources(live, access.coordinator, past, named, folder if own else None, signs_in)


def _price(ptm: PtmAccess) -> Price:
    """Returns what queries cost by the card of the PTM service, if one is named."""
    if not ptm.ptm:
        return FREE
    with ptm.connect() as channel:
        return RemotePtm(channel, patience_seconds=0.0).describe().price
