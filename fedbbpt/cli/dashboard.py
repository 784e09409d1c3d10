"""The command `dashboard`: a web page of the runs of a coordinator, and of past runs in a folder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbbpt.cli.terminal.bundles import CoordinatorAccess, Listening, PtmAccess, with_bundles
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.run_folder import METRICS, STORE
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.files import atomic_write
from fedbbpt.identity.roles import WATCHERS
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.remote import RemoteRun, RemoteRuns
from fedbbpt.types import FREE, Price, RunStatus

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


class _Coordinator:
    """The coordinator as the dashboard asks it."""

    def __init__(self, access: CoordinatorAccess) -> None:
        self._channel = access.connect()

    def list(self) -> Sequence[RunStatus]:
        """Returns the status of every run."""
        return RemoteRuns(self._channel).list()

    def run(self, name: str) -> RemoteRun:
        """Returns the run of this name; "": the only run."""
        return RemoteRun(self._channel, name)


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
    print(f"dashboard: {server.url}/", flush=True)
    if listening.address_file is not None:
        atomic_write(listening.address_file, f"{server.url}/\n")
    with watched.by(lambda: server.reload(listening.members())):
        server.run()


def _sources(access: CoordinatorAccess, ptm: PtmAccess, folder: Path | None, *, signs_in: bool) -> "Sources":
    from fedbbpt.web.dashboard.app import Sources
    from fedbbpt.web.dashboard.live_runs import LiveRuns
    from fedbbpt.web.dashboard.run_folders import RunFolders

    past = None if folder is None else RunFolders(folder)
    live = LiveRuns(_Coordinator(access), _price(ptm)) if access.coordinator else None
    named = "" if folder is None else str(folder)
    own = folder is not None and any((folder / file).exists() for file in (STORE, METRICS))
    result = folder if live is not None and own else None
    if live is not None and result is not None:
        live.measured_later = True
    return Sources(live, access.coordinator, past, named, result, signs_in)


def _price(ptm: PtmAccess) -> Price:
    """Returns what queries cost by the card of the PTM service, if one is named."""
    if not ptm.ptm:
        return FREE
    with ptm.connect() as channel:
        return RemotePtm(channel, patience_seconds=0.0).describe().price
