"""Commands of an operator: the runs of a coordinator that serves many, and the result of any run."""

import dataclasses
import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.cli.status import print_status
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.errors import InvalidInput, reason
from fedbbpt.federation.fetched_result import save_result
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.identity.tokens_file import read_tokens
from fedbbpt.server.remote import RemoteRun, RemoteRuns
from fedbbpt.types import NewRun

Run = Annotated[str, typer.Argument(metavar="NAME", help="The name of the run.")]


NewName = Annotated[str, typer.Option("--name", help="The run's name. By default the job's own.")]
NamedPtm = Annotated[
    str, typer.Option("--ptm", metavar="HOST:PORT,...", help="The PTM service that the coordinator names to clients.")
]
Revision = Annotated[str, typer.Option("--ptm-revision", help="The only revision of the PTM that clients may use.")]
RunTokens = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        metavar="FILE",
        help="The file of the tokens that admit clients to this run only. By default the coordinator's own do.",
        rich_help_panel=options.SECURITY,
        show_default=False,
    ),
]


@with_bundles
def submit(
    job_file: options.JobFile,
    access: CoordinatorAccess,
    name: NewName = "",
    ptm: NamedPtm = "",
    ptm_revision: Revision = "",
    tokens: RunTokens = None,
    json: options.Json = False,
) -> None:
    """Begin a run on a coordinator that serves many. Its clients may join at once.

    Example: fedbbpt runs submit job.toml --coordinator hub.example.org:7000 --tls-ca ca.pem --token-file token
    """
    log_to_stderr(logging.WARNING)
    _submit(access, NewRun(name, _read(job_file), ptm, ptm_revision, _lines(tokens)), json)


@with_bundles
def start_from(
    prompt: Annotated[Path, typer.Argument(metavar="PROMPT", help="The prompt.safetensors of another run.")],
    job_file: options.JobFile,
    access: CoordinatorAccess,
    name: NewName = "",
    ptm: NamedPtm = "",
    ptm_revision: Revision = "",
    tokens: RunTokens = None,
    json: options.Json = False,
) -> None:
    """Begin a run at the prompt that another run has found. A readout is fitted anew.

    Example: fedbbpt runs start-from prompt.safetensors job.toml --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    read_prompt(prompt)  # so that a file that is no prompt is refused here
    new = NewRun(name, _read(job_file), ptm, ptm_revision, _lines(tokens), prompt.read_bytes())
    _submit(access, new, json)


def _submit(access: CoordinatorAccess, new: NewRun, json: bool) -> None:
    with access.connect() as channel:
        print_status(RemoteRuns(channel).submit(new), json)


def _read(job_file: Path) -> str:
    try:
        return job_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(reason(error), where=str(job_file), fix="a job file; `fedbbpt init` writes one") from None


def _lines(tokens: Path | None) -> tuple[str, ...]:
    return tuple(map(str, read_tokens(tokens))) if tokens else ()


@with_bundles
def list_runs(access: CoordinatorAccess, json: options.Json = False) -> None:
    """List the runs of a coordinator, those that have ended included.

    Example: fedbbpt runs list --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        found = RemoteRuns(channel).list()
    if json:
        show({"runs": [dataclasses.asdict(each) for each in found]}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    for title in ("run", "method", "state", "round", "queries"):
        table.add_column(title)
    for each in found:
        table.add_row(each.name, each.method, each.state, f"{each.round} of {each.rounds}", f"{each.queries:,}")
    out.print(table)


@with_bundles
def show_run(run: Run, access: CoordinatorAccess, json: options.Json = False) -> None:
    """Show the state of a run, its clients and its cost, as `fedbbpt status` does.

    Example: fedbbpt runs show questions --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        print_status(RemoteRun(channel, run).status(), json)


@with_bundles
def stop_run(run: Run, access: CoordinatorAccess, json: options.Json = False) -> None:
    """End a run after the open round. Its result is the best prompt so far.

    Example: fedbbpt runs stop questions --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        print_status(RemoteRun(channel, run).stop(), json)


@with_bundles
def delete_run(run: Run, access: CoordinatorAccess, json: options.Json = False) -> None:
    """Delete a run that has ended, with all its files.

    Example: fedbbpt runs delete questions --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        RemoteRun(channel, run).delete()
    show({"deleted": run}, json)


@with_bundles
def continue_run(
    run: Run,
    access: CoordinatorAccess,
    rounds: Annotated[int, typer.Option(min=1, help="The number of rounds to add.")],
    json: options.Json = False,
) -> None:
    """Let a run that has ended play more rounds from where it ended. Its clients join again.

    Example: fedbbpt runs continue questions --rounds 20 --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        print_status(RemoteRun(channel, run).play_on(rounds), json)


@with_bundles
def result(
    access: CoordinatorAccess,
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file for the tuned prompt.")] = Path(
        "prompt.safetensors"
    ),
    run: options.RunName = "",
    json: options.Json = False,
) -> None:
    """Fetch the best prompt of a run so far, with its card.

    Example: fedbbpt result --coordinator hub.example.org:7000 --tls-ca ca.pem --out prompt.safetensors
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        card = save_result(RemoteRun(channel, run), out_file)
    found = {
        "out": str(out_file),
        "ptm": card.ptm,
        "ptm_revision": card.ptm_revision,
        "round": card.best_round,
        "dev_accuracy": card.dev_accuracy,
        "dev_loss": card.dev_loss,
    }
    show(found, json)


@with_bundles
def runs_backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The name of the new file, without folders.")],
    access: CoordinatorAccess,
    run: options.RunName = "",
    json: options.Json = False,
) -> None:
    """Write a backup of a run while it goes on, on the coordinator's machine, next to its store.

    Example: fedbbpt runs backup monday.db --coordinator 127.0.0.1:7000
    """
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        show(dataclasses.asdict(RemoteRun(channel, run).backup(file)), as_json=json, title="backup")
