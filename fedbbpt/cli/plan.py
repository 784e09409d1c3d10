"""`fedbbpt plan`: forecasts what a run will use, before anything is spent."""

import logging
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import JobChanges, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show, warned
from fedbbpt.cli.terminal.forecast_view import forecast_table, rehearsed, remarks, warn
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.model import open_job
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.federation.forecast import measured_rate, rate_of
from fedbbpt.federation.rehearsal import RehearsalPtm
from fedbbpt.federation.run_warnings import data_warnings
from fedbbpt.federation.splits import prepare
from fedbbpt.host.progress import progress
from fedbbpt.job.config import read_job
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import Budget


@with_bundles
def plan(
    job_file: options.JobFile,
    changes: JobChanges,
    service: PtmAccess,
    model: ModelOptions,
    seconds: Annotated[
        float,
        typer.Option(min=0.0, help="How long the rehearsal may take; the rounds that it does not reach are estimated."),
    ] = 20.0,
    send_labels: options.SendLabels = False,
    json: options.Json = False,
) -> None:
    """Forecast the queries, tokens, price, bytes and minutes of a run, before anything is spent.

    The federation is rehearsed with a model that answers at random. A PTM service is asked for its card, registers the
    examples as it does at the start of a run, and scores nothing; a model that this command loads itself is asked for
    a second, to see how fast it is.

    Example: fedbbpt plan job.toml
    """
    log_to_stderr(logging.WARNING)
    job = changes.apply(read_job(job_file))
    with progress("reading the data"):
        splits = prepare(model.apply(job))
    warned(data_warnings(splits))
    with open_job(splits.job, service, model, send_labels=send_labels) as ptm:
        stand_in = RehearsalPtm(ptm, splits)
        splits = splits.completed_by(stand_in)
        if isinstance(ptm, RemotePtm):
            account = ptm.statement()
            left, rate = account.left, rate_of(account.usage)
        else:
            left, rate = Budget(), measured_rate(ptm, splits)
        with progress("rehearsing the run"):
            found = rehearsed(splits, stand_in, left, rate, seconds)
    warn(found)
    if json:
        show(found.record(), as_json=True)
        return
    out.print(forecast_table(found))
    for remark in remarks(found):
        out.print(remark, style="dim", highlight=False)
