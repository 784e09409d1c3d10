"""A run as its operator sees it: `status`."""

import dataclasses
import logging
from typing import Annotated, Any

import typer
from rich.table import Table

from fedbbpt.cli import options
from fedbbpt.cli.console import err, log_to_stderr, out, show
from fedbbpt.cli.view import RunView, size
from fedbbpt.server.remote import Operator
from fedbbpt.server.run_status import RunStatus
from fedbbpt.wire.channel import connect


def status(
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator.")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show each round until the run ends.")] = False,
    tls_ca: options.TlsCa = None,
    client_cert: options.ClientCert = None,
    client_key: options.ClientKey = None,
    token_file: options.Token = None,
    json: options.Json = False,
) -> None:
    """Show how a run stands."""
    log_to_stderr(logging.WARNING)
    tls = options.client_tls(tls_ca, client_cert, client_key)
    with connect(coordinator, tls, options.read_token(token_file)) as channel:
        operator = Operator(channel)
        now = operator.status()
        if watch:
            now = _watch(operator, now, json)
    if json:
        show(_flat(now), as_json=True)
    else:
        out.print(_table(now))


def _watch(operator: Operator, now: RunStatus, as_json: bool) -> RunStatus:
    with RunView(err, f"{now.run_id}: {now.method}", now.rounds) as view:
        for now, news in operator.watch():
            view.note(f"{now.state}, {sum(member.connected for member in now.members)} clients connected")
            view.add(news)
            for report in news if as_json else ():
                show(dataclasses.asdict(report), as_json=True)
    return now


def _flat(now: RunStatus) -> dict[str, Any]:
    return dataclasses.asdict(now)


def _table(now: RunStatus) -> Table:
    table = Table(title=f"{now.run_id}: {now.method}, {now.state}, round {now.round} of {now.rounds}", box=None)
    table.title_justify = "left"
    for name in ("client", "examples", "connected", "answered"):
        table.add_column(name)
    for member in now.members:
        marks = ("yes" if member.connected else "no", "yes" if member.submitted else "not yet")
        table.add_row(member.client_id, f"{member.examples:,}", *marks)
    table.caption_justify = "left"
    table.caption = f"{now.queries:,} queries, {size(now.bytes_up)} up, {size(now.bytes_down)} down" + (
        f"; best: dev accuracy {now.best.dev_accuracy:.3f} in round {now.best.round}" if now.best else ""
    )
    return table
