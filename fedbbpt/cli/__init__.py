"""The command line: builds objects, starts them, nothing else."""

import errno
import os
import sys

import typer

from fedbbpt.cli import bench, conformance, data, federation, owner, prompt, ptm, ptm_serve, roles, status
from fedbbpt.cli.terminal.console import err, fail
from fedbbpt.errors import FedbbptError, StoreError, StoreFull
from fedbbpt.federation.processes import end_with_parent

INTERRUPTED = 130

app = typer.Typer(
    name="fedbbpt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated black-box prompt tuning: tune one prompt together, for a model that nobody gets to see.",
)
app.command()(federation.init)
app.command()(federation.run)
app.command()(federation.simulate)
app.command()(federation.demo)
app.command()(data.data)
app.command()(status.status)
app.command()(status.stop)
app.command()(prompt.predict)
app.command()(prompt.evaluate)
app.add_typer(bench.bench, name="bench")
ptm_serve.ptm.command()(ptm.audit)
ptm_serve.ptm.command()(ptm.token)
app.add_typer(ptm_serve.ptm, name="ptm")
app.add_typer(roles.coordinator, name="coordinator")
app.add_typer(roles.client, name="client")
app.add_typer(owner.owner, name="owner")
app.add_typer(conformance.conformance, name="conformance")


def main() -> None:
    """Runs a command. Exit codes: docs/commands.md."""
    end_with_parent()
    # The C core's own log lines say nothing to users that our errors do not say.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app(prog_name="fedbbpt")
    except FedbbptError as error:
        sys.exit(fail(error))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(fail(StoreFull("the disk is full", where=str(error.filename or ""), fix="free some space")))
        if error.filename is None:
            raise
        what = error.strerror or str(error)
        sys.exit(fail(StoreError(what, where=str(error.filename), fix="a place that can be written")))
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(INTERRUPTED)
