"""Reads the tenants file (docs/tenants.md): TOML with a [[tenant]] table for each tenant, and [defaults] for all."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedbbpt.errors import InvalidInput, reason
from fedbbpt.ptm.tenants.registry import RegisteredTenant, Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.toml.problems import first_problem, parse_toml, suggestion


class _TenantTable(Tenant):
    """A [[tenant]] table: the agreement and the credentials."""

    token_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    certificate: str | None = Field(None, min_length=1)

    def registered(self) -> RegisteredTenant:
        tenant = Tenant.model_validate(self.model_dump(exclude={"token_sha256", "certificate"}))
        return RegisteredTenant(tenant, self.token_sha256, self.certificate)


def read_tenants(path: Path) -> Tenants:
    """Reads and checks the file. Raises InvalidInput that names the file, the tenant and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "a TOML file with a [[tenant]] table for each tenant"
        raise InvalidInput(reason(error), where=str(path), fix=fix) from None
    return Tenants(_parse(parse_toml(text, str(path)), str(path)), str(path))


def _parse(tables: Mapping[str, Any], where: str) -> list[RegisteredTenant]:
    if unknown := sorted(tables.keys() - {"defaults", "tenant"}):
        fix = "[defaults] and a [[tenant]] table for each tenant"
        raise InvalidInput(f"unknown key {unknown[0]!r}", where=where, fix=fix)
    defaults, rows = tables.get("defaults", {}), tables.get("tenant", [])
    if not isinstance(defaults, dict):
        raise InvalidInput("defaults is not a table", where=where, fix="[defaults]")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("no tenant in the file", where=where, fix="a [[tenant]] table for each tenant")
    allowed = [field for field in Tenant.model_fields if field != "name"]
    for key in defaults:
        if key not in allowed:
            raise InvalidInput(f"defaults: unknown key {key!r}", where=where, fix=suggestion(key, allowed))
    tenants = []
    for index, row in enumerate(rows, start=1):
        place = f"tenant {row['name']!r}" if isinstance(row.get("name"), str) else f"tenant {index}"
        tenants.append(_table({**defaults, **row}, place, defaults.keys() - row.keys(), where).registered())
    return tenants


def _table(values: Mapping[str, Any], place: str, from_defaults: Collection[str], where: str) -> _TenantTable:
    try:
        # Strict validation rejects strings as numbers. It goes by way of JSON, where it still accepts enums as strings.
        table = _TenantTable.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problem = first_problem(
            error,
            lambda path: () if path else tuple(_TenantTable.model_fields),
            secret={"token_sha256"},  # a user may have put the token itself there, which must not appear in the log
        )
        place = "defaults" if problem.path[0] in from_defaults else place
        raise InvalidInput(f"{place}: {problem.what}", where=where, fix=problem.fix) from None
    if not table.name:
        raise InvalidInput(f"{place}: the name is empty", where=where, fix="the name of the tenant")
    if table.token_sha256 is None and table.certificate is None:
        fix = "token_sha256, which `fedbbpt ptm token` prints, or certificate"
        raise InvalidInput(f"{place}: no token and no certificate", where=where, fix=fix)
    return table
