"""Commands of an operator: the clients of a run, and the names that they own."""

import dataclasses
import logging
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import MemberStatus


@with_bundles
def list_members(access: CoordinatorAccess, run: options.RunName = "", json: options.Json = False) -> None:
    """List all clients that own a name in a run, with what keeps them from their tasks.

    Example: fedbbpt members list --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        members = RemoteRun(channel, run).members()
    if json:
        show({"members": [dataclasses.asdict(member) for member in members]}, as_json=True)
    else:
        out.print(members_table(members))


@with_bundles
def remove_member(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The client's name.")],
    access: CoordinatorAccess,
    run: options.RunName = "",
    json: options.Json = False,
) -> None:
    """Take a client out of a run, and free its name for another one. Its updates stay counted.

    Example: fedbbpt members remove north --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        RemoteRun(channel, run).remove(name)
    show({"removed": name}, json)


def members_table(members: list[MemberStatus]) -> Table:
    """Returns the clients for people, one in each row."""
    table = Table(box=None, header_style="dim")
    for title in ("client", "examples", "takes part", "connected", "answered"):
        table.add_column(title)
    if troubled := any(member.trouble for member in members):
        table.add_column("trouble")
    for member in members:
        marks = [member.takes_part, member.connected, member.submitted]
        cells = ["yes" if mark else "no" for mark in marks] + [trouble(member)] * troubled
        table.add_row(member.client_id, f"{member.examples:,}", *cells)
    return table


def trouble(member: MemberStatus) -> str:
    """Returns what keeps a client from its task, and since when, or ""."""
    if not member.trouble:
        return ""
    since = datetime.fromtimestamp(member.trouble_since, UTC)
    return f"since {since:%Y-%m-%d %H:%M} UTC: {member.trouble}"
