"""Commands of a provider: `ptm token` makes a tenant's token, `ptm audit` verifies and sums up the audit log."""

import hashlib
import json
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.audit_summary import AuditSummary
from fedbbpt.cli.terminal.console import out
from fedbbpt.errors import InvalidInput
from fedbbpt.host.audit import Anchor, Record, read_audit
from fedbbpt.ptm.tenants.accounts import usage_of
from fedbbpt.types import Usage

TOKEN_BYTES = 32


@dataclass(slots=True)
class Sums:
    """Sums over one tenant's records."""

    records: int = 0
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    label_tokens: set[str] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Adds one record."""
        self.records += 1
        if record["kind"] == "score":
            self.calls += 1
            self.usage += usage_of(record)
        elif record["kind"] == "task":
            self.label_tokens.update(record["label_tokens"])

    def shown(self) -> dict[str, int]:
        """Returns the sums as the command prints them."""
        return {
            "records": self.records,
            "calls": self.calls,
            "queries": self.usage.queries,
            "cached_queries": self.usage.cached_queries,
            "tokens": self.usage.tokens,
            "cost_micros": self.usage.cost_micros,
            "label_tokens": len(self.label_tokens),
        }


def token(as_json: options.Json = False) -> None:
    """Make a token for a tenant, and print it with its line for tenants.toml.

    Send the token to the tenant, and put the line into the file. The token is stored nowhere.

    Example: fedbbpt ptm token
    """
    made = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        sys.stdout.write(json.dumps({"token": made, "token_sha256": digest}) + "\n")
    else:
        sys.stdout.write(f'{made}\ntoken_sha256 = "{digest}"\n')


def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The audit log of a PTM service, which may be running.")],
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Sum up only this tenant.")] = "",
    anchor: Annotated[str, typer.Option(metavar="N:HASH", help="Check that the N-th record still has this hash.")] = "",
    as_json: options.Json = False,
) -> None:
    """Verify an audit log, and sum up what each tenant has used.

    A record that was changed, removed or moved is detected. Only an anchor detects that the last records were cut off:
    keep the printed anchor in a place that cannot be changed together with the log.

    Example: fedbbpt ptm audit audit.jsonl
    """
    log = AuditSummary()
    sums: dict[str, Sums] = {}
    for record in read_audit(file, Anchor.parse(anchor) if anchor else None):
        if "tenant" not in record:
            fix = "the log of a PTM service; `fedbbpt coordinator audit` reads this one"
            raise InvalidInput("the audit log of a coordinator", where=str(file), fix=fix)
        sums.setdefault(record["tenant"], Sums()).add(record)
        log.add(record)
    if tenant:
        if tenant not in sums:
            fix = f"one of {', '.join(sorted(sums))}" if sums else "a log with records"
            raise InvalidInput(f"no record of {tenant!r}", where="--tenant", fix=fix)
        sums = {tenant: sums[tenant]}
    tenants = {name: sums[name].shown() for name in sorted(sums)}
    if as_json:
        sys.stdout.write(json.dumps(log.shown() | {"tenants": tenants}) + "\n")
    elif log.show(anchored=bool(anchor)):
        _print(tenants)


def _print(tenants: dict[str, dict[str, int]]) -> None:
    table = Table(box=None)
    table.add_column("tenant")
    for name in ("calls", "queries", "cached", "tokens", "cost (micros)", "label tokens"):
        table.add_column(name, justify="right")
    for name, shown in tenants.items():
        table.add_row(name or "(in process)", *(f"{value:,}" for key, value in shown.items() if key != "records"))
    out.print(table)
