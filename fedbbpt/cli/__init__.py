"""The command line: builds objects, starts them, and nothing else."""

import atexit
import errno
import gc
import os
import sys
from typing import Annotated

# Read when gRPC is imported. Its C core logs to standard error, and our own errors say all that a user needs.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import typer

from fedbbpt.cli.command_group import CommandGroup
from fedbbpt.cli.terminal.signals import INTERRUPTED, exit_on_sigterm
from fedbbpt.errors import FedbbptError, StoreError, StoreFull
from fedbbpt.federation.processes import end_with_parent

app = typer.Typer(
    name="fedbbpt",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated black-box prompt tuning: tune one prompt together for a model that nobody can see inside.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # takes longer to import than this command to answer

        print(f"fedbbpt {version('fedbbpt')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs a command, and exits with one of the codes in docs/commands.md."""
    exit_on_sigterm()
    end_with_parent()
    # At its end, Python collects the streams of gRPC that are left. Each takes a lock, which a thread may hold that has
    # been stopped by then, and the process would wait for ever.
    atexit.register(gc.freeze)
    try:
        app(prog_name="fedbbpt")
    except FedbbptError as error:
        sys.exit(_fail(error))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(_fail(StoreFull("the disk is full", where=str(error.filename or ""), fix="free some space")))
        if error.filename is None:
            raise
        what = error.strerror or str(error)
        sys.exit(_fail(StoreError(what, where=str(error.filename), fix="a path that can be written")))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


def _fail(error: FedbbptError) -> int:
    from fedbbpt.cli.terminal.console import fail  # takes a while to import, and most commands do not fail

    return fail(error)
