"""The command line: builds objects, starts them, and nothing else."""

import errno
import os
import sys
from importlib.metadata import version
from typing import Annotated

# Read when gRPC is imported. Its C core logs to standard error, and our own errors say all that a user needs.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import typer

from fedbbpt.cli import (
    bench,
    client,
    conformance,
    coordinator,
    data,
    evaluate,
    federation,
    owner,
    predict,
    ptm,
    ptm_caller,
    ptm_serve,
    status,
    wordings,
)
from fedbbpt.cli.terminal.console import err, fail
from fedbbpt.errors import FedbbptError, StoreError, StoreFull
from fedbbpt.federation.processes import end_with_parent

INTERRUPTED = 130

app = typer.Typer(
    name="fedbbpt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated black-box prompt tuning: tune one prompt together for a model that nobody can see inside.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fedbbpt {version('fedbbpt')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for command in (
    federation.init,
    federation.run,
    federation.simulate,
    federation.demo,
    data.data,
    status.status,
    status.stop,
    predict.predict,
    evaluate.evaluate,
    wordings.wordings,
):
    app.command()(command)
ptm_serve.ptm.command()(ptm.audit)
ptm_serve.ptm.command()(ptm.token)
ptm_serve.ptm.command()(ptm_caller.describe)
ptm_serve.ptm.command()(ptm_caller.usage)
app.add_typer(coordinator.coordinator, name="coordinator")
app.add_typer(client.client, name="client")
app.add_typer(owner.owner, name="owner")
app.add_typer(ptm_serve.ptm, name="ptm")
app.add_typer(conformance.conformance, name="conformance")
app.add_typer(bench.bench, name="bench")


def main() -> None:
    """Runs a command, and exits with one of the codes in docs/commands.md."""
    end_with_parent()
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
        sys.exit(fail(StoreError(what, where=str(error.filename), fix="a path that can be written")))
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(INTERRUPTED)
