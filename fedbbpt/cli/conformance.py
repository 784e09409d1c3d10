"""`fedbbpt conformance ptm`: tells a provider, whatever its language, whether its PtmService is one."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fedbbpt.cli.terminal import options
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

conformance = typer.Typer(no_args_is_help=True, help="Whether a service keeps to its contract.")


@conformance.callback()
def _group() -> None:
    """Keeps `ptm` a command of its own while there is no other."""


@conformance.command()
def ptm(
    target: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The service. Give it a tenant of its own.", show_default=False)
    ] = "",
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join(cases.profiles())}; may be given several times. Without it: what the card offers.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="Of tasks, where the default does not suit the model.")] = "",
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="A class that the model can score; once for each, at least two.")
    ] = None,
    known_failing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cases that are known to fail, a name a line.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML.")] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Print the cases and what each claims.")] = False,
    call_seconds: Annotated[float, typer.Option(min=0.1, help="The longest that a call may take.")] = 60.0,
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_client_cert: options.PtmClientCert = None,
    ptm_client_key: options.PtmClientKey = None,
    ptm_token_file: options.PtmToken = None,
    other_token_file: Annotated[
        Path | None,
        typer.Option(help="A second tenant's token: some cases need two.", rich_help_panel="Security"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Try a PTM service in any language against the contract of ptm.proto.

    Example: fedbbpt conformance ptm --target 127.0.0.1:7001
    """
    if list_cases:
        _list(profile or cases.profiles(), json)
        return
    if not target:
        raise InvalidInput("no service", where="--target", fix="HOST:PORT, or --list")
    with open_service(
        target,
        tls=options.client_tls(ptm_tls_ca, ptm_client_cert, ptm_client_key, ptm=True),
        token=options.read_token(ptm_token_file),
        other_token=options.read_token(other_token_file),
        template=template,
        classes=classes or (),
        call_seconds=call_seconds,
    ) as service:
        profiles = profile or service.profiles()
        chosen = cases.read(profiles)
        known = report.read_known_failing(known_failing, cases.read(cases.profiles())) if known_failing else frozenset()
        before = service.queries()
        results = run(service, chosen, known, (lambda result: None) if json else _tell)
        queries = service.queries() - before
        card = service.me.card
    if junit is not None:
        report.write_junit(results, junit)
    if json:
        _show(results, {"target": target, "model": card.model, "revision": card.revision}, profiles, queries)
    else:
        err.print(f"{card.model}, profiles {', '.join(profiles)}, {queries:,} queries", style="dim")
        out.print(report.summary(results))
    if not all(result.outcome.good for result in results):
        raise typer.Exit(EXIT_CODES[FedbbptError])


def _tell(result: Result) -> None:
    line = Text.assemble((f"{result.outcome:8}", _STYLES[result.outcome]), " ", result.case.name)
    if result.outcome is not Outcome.PASSED:
        line.append(f": {result.detail or 'it is on the list of those that fail'}", style="dim")
    out.print(line, soft_wrap=True)
    if result.outcome is Outcome.FAILED:
        out.print(f"         {result.case.claim}", style="dim", soft_wrap=True)


def _show(results: list[Result], about: dict[str, Any], profiles: list[str], queries: int) -> None:
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
    show({**about, "profiles": profiles, "conforms": passed, "queries": queries, "cases": rows}, as_json=True)


def _list(profiles: list[str] | tuple[str, ...], json: bool) -> None:
    found = cases.read(profiles)
    if json:
        show({"cases": [{"name": case.name, "claim": case.claim} for case in found]}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    table.add_column("case", no_wrap=True)
    table.add_column("what it claims")
    for case in found:
        table.add_row(case.name, case.claim)
    out.print(table)
