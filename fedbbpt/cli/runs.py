"""Commands on the runs of a coordinator, for its operator."""

import dataclasses
import logging
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, with_bundles
from fedbbpt.cli.terminal.console import show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.server.remote import RemoteRun


@with_bundles
def runs_backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The name of the new file, without folders.")],
    access: CoordinatorAccess,
    json: options.Json = False,
) -> None:
    """Write a backup of a run while it goes on, on the coordinator's machine, next to its store.

    Example: fedbbpt runs backup monday.db --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        show(dataclasses.asdict(RemoteRun(channel).backup(file)), as_json=json, title="backup")
