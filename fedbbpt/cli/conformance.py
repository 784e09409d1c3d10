"""`fedbbpt conformance`: tests a provider's PtmService, or a client, from outside, in any language."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Table
from rich.text import Text

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import EXIT_CODES, err, out, show
from fedbbpt.conformance import report
from fedbbpt.conformance.case_files import CaseOfAKit
from fedbbpt.conformance.client import cases as client_cases
from fedbbpt.conformance.client import command as client_command
from fedbbpt.conformance.client import suite as client_suite
from fedbbpt.conformance.ptm import cases
from fedbbpt.conformance.ptm.suite import open_service, run
from fedbbpt.conformance.results import Outcome, Result
from fedbbpt.errors import FedbbptError, InvalidInput

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.SKIPPED: "dim",
    Outcome.FAILED: "bold red",
    Outcome.KNOWN: "yellow",
    Outcome.UNEXPECTED: "bold red",
}


KnownFailing: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The file with the cases that are known to fail, one name on each line."),
]
Junit: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="The file for the results, as JUnit XML.")]
ListCases: TypeAlias = Annotated[bool, typer.Option("--list", help="Print the cases and their claims.")]


@with_bundles
def ptm(
    service: PtmAccess,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A profile of cases: {', '.join(cases.profiles())}. Repeat it for more. "
            "By default all that apply to the card.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="The template of tasks, if the default does not suit the model.")] = "",
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class of tasks that the model can score. Give at least two."),
    ] = None,
    known_failing: KnownFailing = None,
    junit: Junit = None,
    list_cases: ListCases = False,
    call_seconds: Annotated[float, typer.Option(min=0.1, help="The timeout of each call, in seconds.")] = 60.0,
    other_token_file: Annotated[
        Path | None,
        typer.Option(
            help="The file with a second tenant's token, for cases that need two.", rich_help_panel="Security"
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Test a PTM service, in any language, against the contract of ptm.proto.

    Give the kit a tenant that no other caller uses meanwhile, since it compares its own calls with the tenant's usage.

    Example: fedbbpt conformance ptm --ptm 127.0.0.1:7001
    """
    if list_cases:
        _print_cases(cases.read(profile or cases.profiles()), json)
        return
    if not service.ptm:
        raise InvalidInput("no service is given", where="--ptm", fix="HOST:PORT of the service, or --list")
    with open_service(
        service.ptm,
        tls=service.tls(),
        token=service.token(),
        other_token=options.read_token(other_token_file),
        template=template,
        classes=classes or (),
        call_seconds=call_seconds,
    ) as tested:
        profiles = profile or tested.profiles()
        known = (
            report.read_known_failing(known_failing, cases.read(cases.profiles()), "ptm")
            if known_failing
            else frozenset()
        )
        before = tested.queries()
        results = run(tested, cases.read(profiles), known, (lambda result: None) if json else _print_result)
        queries = tested.queries() - before
        card = tested.me.card
    about = {"target": service.ptm, "model": card.model, "revision": card.revision, "profiles": list(profiles)}
    _finish(results, "ptm", junit, {**about, "queries": queries}, json)
    if not json:
        err.print(f"{card.model}, profiles {', '.join(profiles)}, {queries:,} queries", style="dim")
    _exit(results)


def client(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- CMD ...",
            help="The client's command. These words in it are replaced: "
            + "; ".join(f"{{{name}}}, {meaning}" for name, meaning in client_command.PLACEHOLDERS.items())
            + ".",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A profile of cases: {', '.join(client_cases.profiles())}. Repeat it for more. By default core and "
            "fed-cma.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Play only this case, such as core/rounds. Repeat it for more.", show_default=False),
    ] = None,
    known_failing: KnownFailing = None,
    junit: Junit = None,
    list_cases: ListCases = False,
    at_once: Annotated[int, typer.Option(min=1, help="Number of cases to play at the same time.")] = 2,
    wait_seconds: Annotated[
        float, typer.Option(min=1.0, help="How long to wait for anything that the client must do, in seconds.")
    ] = 30.0,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder for the files of each case, with the client's output in client.log."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Test a client, in any language, against docs/protocol.md, with a mock coordinator and a fake PTM service.

    The command is started anew for each case, and again after it was killed. It must end when the run does.

    Example: fedbbpt conformance client -- node client.js {coordinator} {data} --id {client} --state {state}
    """
    chosen = client_cases.read(profile or (client_cases.profiles() if case else client_cases.DEFAULT))
    if case:
        chosen = _named(chosen, case)
    if list_cases:
        _print_cases(client_cases.read(profile or client_cases.profiles()), json)
        return
    client_command.check(command or ())
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise InvalidInput("the folder is not empty", where=str(keep), fix="a new folder")
    every = client_cases.read(client_cases.profiles())
    known = report.read_known_failing(known_failing, every, "client") if known_failing else frozenset()
    with _without_logs():
        results = asyncio.run(
            client_suite.run(
                command or (),
                chosen,
                known,
                (lambda result: None) if json else _print_result,
                at_once=at_once,
                seconds=wait_seconds,
                folder=keep,
            )
        )
    _finish(results, "client", junit, {"target": " ".join(command or ())}, json)
    _exit(results)


@contextmanager
def _without_logs() -> Iterator[None]:
    """Silences the kit's own services, which refuse calls on purpose."""
    log = logging.getLogger("fedbbpt")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _named(cases: Sequence[client_cases.Case], names: Sequence[str]) -> tuple[client_cases.Case, ...]:
    """Returns the cases of these names. Raises InvalidInput for an unknown name."""
    for name in names:
        if not any(one.name == name for one in cases):
            fix = "a name that `fedbbpt conformance client --list` prints"
            raise InvalidInput(f"there is no case {name!r}", where="--case", fix=fix)
    return tuple(one for one in cases if one.name in names)


def _finish(results: Sequence[Result], kit: str, junit: Path | None, about: dict[str, Any], json: bool) -> None:
    """Writes and prints the results of a kit."""
    if junit is not None:
        report.write_junit(results, junit, kit)
    if json:
        _print_json(results, about)
    else:
        out.print(report.summary(results))


def _exit(results: Sequence[Result]) -> None:
    """Ends the command with the code of a failed case, if there is one."""
    if not all(result.outcome.good for result in results):
        raise typer.Exit(EXIT_CODES[FedbbptError])


def _print_result(result: Result) -> None:
    line = Text.assemble((f"{result.outcome:8}", _STYLES[result.outcome]), " ", result.case.name)
    if result.outcome is not Outcome.PASSED:
        line.append(f": {result.detail or 'the case is on the list of known failures'}", style="dim")
    out.print(line, soft_wrap=True)
    if result.outcome is Outcome.FAILED:
        out.print(f"         {result.case.claim}", style="dim", soft_wrap=True)


def _print_json(results: Sequence[Result], about: dict[str, Any]) -> None:
    rows = [
        {
            "name": result.case.name,
            "claim": result.case.claim,
            "outcome": result.outcome.value,
            "detail": result.detail,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    ]
    passed = all(result.outcome.good for result in results)
    show({**about, "conforms": passed, "cases": rows}, as_json=True)


def _print_cases(found: Sequence[CaseOfAKit], json: bool) -> None:
    if json:
        show({"cases": [{"name": case.name, "claim": case.claim} for case in found]}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    table.add_column("case", no_wrap=True)
    table.add_column("claim")
    for case in found:
        table.add_row(case.name, case.claim)
    out.print(table)
