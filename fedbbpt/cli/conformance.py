"""`fedbbpt conformance ptm`: tests a provider's PtmService from outside, in any language."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import EXIT_CODES, err, out, show
from fedbbpt.conformance import cases, report
from fedbbpt.conformance.suite import Outcome, Result, open_service, run
from fedbbpt.errors import FedbbptError, InvalidInput

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.SKIPPED: "dim",
    Outcome.FAILED: "bold red",
    Outcome.KNOWN: "yellow",
    Outcome.UNEXPECTED: "bold red",
}


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
    known_failing: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with the cases that are known to fail, one name on each line."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="The file for the results, as JUnit XML.")] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Print the cases and their claims.")] = False,
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
        _print_cases(profile or cases.profiles(), json)
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
        known = report.read_known_failing(known_failing, cases.read(cases.profiles())) if known_failing else frozenset()
        before = tested.queries()
        results = run(tested, cases.read(profiles), known, (lambda result: None) if json else _print_result)
        queries = tested.queries() - before
        card = tested.me.card
    if junit is not None:
        report.write_junit(results, junit)
    about = {"target": service.ptm, "model": card.model, "revision": card.revision, "profiles": list(profiles)}
    if json:
        _print_json(results, about, queries)
    else:
        err.print(f"{card.model}, profiles {', '.join(profiles)}, {queries:,} queries", style="dim")
        out.print(report.summary(results))
    if not all(result.outcome.good for result in results):
        raise typer.Exit(EXIT_CODES[FedbbptError])


def _print_result(result: Result) -> None:
    line = Text.assemble((f"{result.outcome:8}", _STYLES[result.outcome]), " ", result.case.name)
    if result.outcome is not Outcome.PASSED:
        line.append(f": {result.detail or 'the case is on the list of known failures'}", style="dim")
    out.print(line, soft_wrap=True)
    if result.outcome is Outcome.FAILED:
        out.print(f"         {result.case.claim}", style="dim", soft_wrap=True)


def _print_json(results: list[Result], about: dict[str, Any], queries: int) -> None:
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
    show({**about, "conforms": passed, "queries": queries, "cases": rows}, as_json=True)


def _print_cases(profiles: list[str] | tuple[str, ...], json: bool) -> None:
    found = cases.read(profiles)
    if json:
        show({"cases": [{"name": case.name, "claim": case.claim} for case in found]}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    table.add_column("case", no_wrap=True)
    table.add_column("claim")
    for case in found:
        table.add_row(case.name, case.claim)
    out.print(table)
