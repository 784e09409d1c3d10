"""The command `coordinator audit`: verifies a coordinator's audit log, and counts what is in it."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.audit_summary import AuditSummary
from fedbbpt.cli.terminal.console import out
from fedbbpt.errors import InvalidInput
from fedbbpt.host.audit import Anchor, read_audit

KINDS = ("join", "eviction", "refusal", "leave", "removal")
"""The kinds of records about clients, as columns of the table."""


def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The audit log of a coordinator, which may be running.")],
    anchor: Annotated[str, typer.Option(metavar="N:HASH", help="Check that the N-th record still has this hash.")] = "",
    as_json: options.Json = False,
) -> None:
    """Verify a coordinator's audit log, and count its records.

    A record that was changed, removed or moved is detected. Only an anchor detects that the last records were cut off:
    keep the printed anchor in a place that cannot be changed together with the log.

    Example: fedbbpt coordinator audit audit.jsonl
    """
    log = AuditSummary()
    clients: dict[str, Counter[str]] = {}
    stops, epsilon = 0, dict[str, float]()
    for record in read_audit(file, Anchor.parse(anchor) if anchor else None):
        if "client" not in record:
            fix = "the log of a coordinator; `fedbbpt ptm audit` reads this one"
            raise InvalidInput("the audit log of a PTM service", where=str(file), fix=fix)
        log.add(record)
        if record["client"]:
            clients.setdefault(record["client"], Counter())[record["kind"]] += 1
        elif record["kind"] == "privacy":
            epsilon[record.get("run", "")] = record["epsilon"]
        else:
            stops += record["kind"] == "stop"
    found = {
        "stops": stops,
        "epsilon": epsilon,
        "clients": {name: {kind: clients[name][kind] for kind in KINDS} for name in sorted(clients)},
    }
    if as_json:
        sys.stdout.write(json.dumps(log.shown() | found) + "\n")
    elif log.show(anchored=bool(anchor)):
        _print(found)


def _print(found: dict[str, Any]) -> None:
    if found["stops"]:
        out.print(f"stopped {found['stops']} times")
    for run, epsilon in found["epsilon"].items():
        out.print(f"epsilon {epsilon:.4g} spent by {run or 'the run'}", markup=False)
    table = Table("client", box=None)
    for kind in KINDS:
        table.add_column(f"{kind}s", justify="right")
    for name, counts in found["clients"].items():
        table.add_row(name, *(f"{counts[kind]:,}" for kind in KINDS))
    out.print(table)
