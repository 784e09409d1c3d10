"""Commands of a run's operator: `status` and `stop`."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.cli.members import trouble
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.amounts import size
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, with_bundles
from fedbbpt.cli.terminal.console import err, out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.run_view import RunView, decimals, privacy_line
from fedbbpt.errors import CoordinatorUnavailable
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import RunStatus


@with_bundles
def status(
    access: CoordinatorAccess,
    run: options.RunName = "",
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show each round until the run ends.")] = False,
    json: options.Json = False,
) -> None:
    """Show the state of a run, its clients and its cost.

    Example: fedbbpt status --coordinator 127.0.0.1:7000 --watch
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        remote = RemoteRun(channel, run)
        now = _ask(remote.status, access.coordinator)
        if watch:
            now = _watch(remote, now, json)
    print_status(now, json)


@with_bundles
def stop(access: CoordinatorAccess, run: options.RunName = "", json: options.Json = False) -> None:
    """End a run after the open round. Its result is the best prompt so far.

    Example: fedbbpt stop --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        print_status(_ask(RemoteRun(channel, run).stop, access.coordinator), json)


def _ask(call: Callable[[], RunStatus], coordinator: str) -> RunStatus:
    try:
        return call()
    except CoordinatorUnavailable as error:
        fix = f"{error.fix or 'the address of a coordinator'}; a coordinator whose run has ended does not answer"
        raise CoordinatorUnavailable(f"no answer ({error.what})", where=coordinator, fix=fix) from None


def _watch(run: RemoteRun, now: RunStatus, as_json: bool) -> RunStatus:
    with RunView(err, f"{now.run_id}: {now.method}", now.rounds) as view:
        for now, news in run.watch():
            view.note(f"{now.state}, {sum(member.connected for member in now.members)} clients connected")
            view.add(news)
            for report in news if as_json else ():
                show(dataclasses.asdict(report), as_json=True)
    return now


def print_status(now: RunStatus, as_json: bool) -> None:
    """Prints the state of a run for people, or as JSON."""
    if as_json:
        show(dataclasses.asdict(now), as_json=True)
        return
    table = Table(box=None, header_style="dim")
    for name in ("client", "examples", "connected", "answered"):
        table.add_column(name)
    for member in now.members:
        marks = ("yes" if member.connected else "no", "yes" if member.submitted else "not yet")
        table.add_row(member.client_id, f"{member.examples:,}", *marks)
    named = f"{now.name} " if now.name and not now.run_id.startswith(f"{now.name}-") else ""
    out.print(f"{named}{now.run_id}: {now.method}, {now.state}, round {now.round} of {now.rounds}", highlight=False)
    out.print(table)
    for member in now.members:
        if member.trouble:
            out.print(f"{member.client_id} cannot work {trouble(member)}", highlight=False)
    if now.best:
        best = f"dev accuracy {decimals(now.best.dev_accuracy, 3)}, dev loss {decimals(now.best.dev_loss, 4)}"
        out.print(f"best: {best} in round {now.best.round}", highlight=False)
    if now.privacy:
        out.print(privacy_line(now.privacy), highlight=False)
    cost = f"{now.queries:,} queries, {size(now.bytes_up)} up, {size(now.bytes_down)} down"
    out.print(cost, highlight=False)
