"""Who may ask the model, how much of it, and what they are told: who shares a token or a certificate is one tenant.

Only the SHA-256 of a token is kept, here and in the file: whoever reads that cannot call the service with it.
"""

import difflib
import hashlib
import hmac
import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, ValidationError, model_validator

from fedbbpt.errors import InvalidInput, Unauthenticated
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Output, Price

MAX_COUNT = 2**63 - 1
"""What a message holds."""
MAX_MICROS = 10**9
"""A thousand units of a currency for one query."""


class Tenant(Section):
    """A caller as the service knows it, and what was agreed with it."""

    name: str = Field(pattern=r"^[A-Za-z0-9._@-]{0,64}$", description="In usage, metrics and the audit log.")
    output: Output = Field(Output.LABEL_LOGITS, description="What the service answers.")
    min_examples: int = Field(8, ge=2, description="Different examples of a handle, where the output is loss-only.")
    overlaps: bool = Field(True, description="Whether handles may differ in few inputs, where the output is loss-only.")
    label_tokens: Annotated[int, Field(ge=2, le=MAX_COUNT)] | Literal["all"] | None = Field(
        None, description="Different label tokens over all tasks, for life."
    )
    max_queries: int | None = Field(None, ge=0, le=MAX_COUNT, description="Queries, for life.")
    max_tokens: int | None = Field(None, ge=0, le=MAX_COUNT, description="Tokens that the model computes, for life.")
    queries_per_second: float | None = Field(None, gt=0, description="In the long run.")
    burst_queries: int | None = Field(None, ge=1, description="That may come at once after a rest.")
    currency: str = Field("", pattern=r"^([A-Z]{3})?$", description="ISO 4217, of the three prices.")
    micros_per_query: int = Field(0, ge=0, le=MAX_MICROS, description="Price of a query that the model computes.")
    micros_per_cached_query: int = Field(0, ge=0, le=MAX_MICROS, description="Price of a repeated query.")
    micros_per_thousand_tokens: int = Field(0, ge=0, le=MAX_MICROS, description="Price of computed tokens.")

    @model_validator(mode="after")
    def _parts_fit(self) -> "Tenant":
        if self.burst_queries is not None and self.queries_per_second is None:
            raise contradiction("burst_queries", "no rate that it could exceed", "queries_per_second as well")
        prices = self.micros_per_query, self.micros_per_cached_query, self.micros_per_thousand_tokens
        if any(prices) and not self.currency:
            raise contradiction("currency", "prices of no currency", 'for example "EUR"')
        return self

    @property
    def price(self) -> Price:
        return Price(
            self.currency, self.micros_per_query, self.micros_per_cached_query, self.micros_per_thousand_tokens
        )

    @property
    def burst(self) -> float:
        """Queries; infinite where there is no rate."""
        if self.queries_per_second is None:
            return float("inf")
        return float(self.burst_queries or max(1.0, self.queries_per_second))

    def max_label_tokens(self, hidden_size: int) -> int | None:
        """How many columns of the model's last layer the tenant may see; None: all.

        Scores over as many columns as the layer is wide give the layer away, up to a rotation (arXiv 2403.06634);
        a quarter of them leaves the rest unknown. `hidden_size` 0: there is nothing to hide.
        """
        if self.label_tokens == "all":
            return None
        if self.label_tokens is not None:
            return self.label_tokens
        return max(2, hidden_size // 4 - 1) if hidden_size else None


OWNER = Tenant(name="", label_tokens="all")
"""Whoever has the model in their own process."""


ANYONE = Tenant(name="anyone")
"""All callers of a service that asks for no token."""


class _Entry(Tenant):
    """A tenant as the file has it, with what it is known by."""

    token_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    certificate: str | None = Field(None, min_length=1)

    def tenant(self) -> Tenant:
        return Tenant.model_validate(self.model_dump(exclude={"token_sha256", "certificate"}))


@dataclass(frozen=True, slots=True)
class _Known:
    """A tenant, and all that it has to show; where it has neither, nothing."""

    tenant: Tenant
    token_sha256: str | None = None
    certificate: str | None = None


class Tenants:
    """Everybody who may ask."""

    def __init__(self, known: Sequence[_Known]) -> None:
        """Use `read`, `of_tokens` or `anyone`."""
        self._known = known

    def __iter__(self) -> Iterator[Tenant]:
        return (known.tenant for known in self._known)

    @staticmethod
    def anyone(tenant: Tenant = ANYONE) -> "Tenants":
        """One tenant, for all who call."""
        return Tenants([_Known(tenant)])

    @staticmethod
    def of_tokens(tokens: Collection[str]) -> "Tenants":
        """One tenant for each token, with the defaults. Raises InvalidInput where there is none."""
        digests = sorted({_sha256(token) for token in tokens})
        if not digests:
            raise InvalidInput("no token", where="tokens", fix="at least one")
        known = [_Known(Tenant(name=digest[:8]), digest) for digest in digests]
        _check_distinct(known, "tokens")
        return Tenants(known)

    @staticmethod
    def read(path: Path) -> "Tenants":
        """Raises InvalidInput with file and key."""
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(str(error), where=str(path), fix="a TOML file with a [[tenant]] for each") from None
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"not TOML: {error}", where=str(path)) from None
        known = _parse(tables, str(path))
        _check_distinct(known, str(path))
        return Tenants(known)

    def identify(self, shown: Sequence[str], certificate_names: Sequence[str]) -> Tenant:
        """Who shows these: the values of `authorization`, and the names (CN, SAN) of a certificate that was verified.

        A token names its tenant, who shows its certificate besides, if it has one. Without a token the certificate
        names the tenant. Raises Unauthenticated.
        """
        if len(shown) > 1:
            raise Unauthenticated("more than one token", where="authorization", fix="one")
        digests = [_sha256(_token(value)) for value in shown]
        # All are compared, so that the time taken tells nothing about which.
        found = [known for known in self._known if _fits(known, digests, certificate_names)]
        if len(found) != 1:
            what = "a certificate of two tenants" if found else "nobody that this service knows"
            fix = "--token-file with this service's token, or the certificate that it knows"
            raise Unauthenticated(what, where="authorization", fix=fix)
        return found[0].tenant


def _token(value: str) -> str:
    """Empty, which is nobody's, where it is none."""
    scheme, _, token = value.partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _fits(known: _Known, digests: Sequence[str], certificate_names: Sequence[str]) -> bool:
    if known.token_sha256 is None and known.certificate is None:
        return True
    own_token = any([hmac.compare_digest(known.token_sha256 or "", digest) for digest in digests])
    own_name = known.certificate in certificate_names
    # Whoever shows a token is asked for nothing less than that it is known.
    return own_token == bool(digests or known.token_sha256) and (own_name or known.certificate is None)


def _parse(tables: Mapping[str, Any], name: str) -> list[_Known]:
    if unknown := sorted(tables.keys() - {"defaults", "tenant"}):
        raise InvalidInput(f"unknown key {unknown[0]!r}", where=name, fix="[defaults] and a [[tenant]] for each tenant")
    defaults, rows = tables.get("defaults", {}), tables.get("tenant", [])
    if not isinstance(defaults, dict):
        raise InvalidInput("defaults is no table", where=name, fix="[defaults]")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("no tenant in it", where=name, fix="a [[tenant]] for each tenant")
    for key in defaults:
        if key not in Tenant.model_fields or key == "name":
            _unknown(f"defaults.{key}", name, [field for field in Tenant.model_fields if field != "name"])
    known = []
    for index, row in enumerate(rows):
        entry = _entry({**defaults, **row}, _place(index, row), defaults.keys() - row.keys(), name)
        known.append(_Known(entry.tenant(), entry.token_sha256, entry.certificate))
    return known


def _place(index: int, row: Mapping[str, Any]) -> str:
    """What people call a tenant."""
    return f"tenant {row['name']!r}" if isinstance(row.get("name"), str) else f"tenant {index + 1}"


def _entry(table: Mapping[str, Any], place: str, by_default: Collection[str], name: str) -> _Entry:
    try:
        # By way of JSON, because there strict means that a text is no number.
        entry = _Entry.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors()
    else:
        if not entry.name:
            raise InvalidInput(f"{place}: an empty name", where=name, fix="the name of the tenant")
        if entry.token_sha256 is None and entry.certificate is None:
            fix = "token_sha256, which `fedbbpt ptm token` prints, or certificate"
            raise InvalidInput(f"{place}: nothing that it is known by", where=name, fix=fix)
        return entry
    first = problems[0]
    if first["type"] == "contradiction":
        what = f"{place}: {first['ctx']['key']}: {first['ctx']['what']}"
        raise InvalidInput(what, where=name, fix=first["ctx"]["fix"])
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        _unknown(f"{place}: {key}", name, list(_Entry.model_fields))
    if first["type"] == "missing":
        raise InvalidInput(f"{place}: {key} is missing", where=name, fix=f"{key} = ...")
    # A key of several types has a problem with each.
    said = dict.fromkeys(
        problem["msg"][0].lower() + problem["msg"][1:] for problem in problems if problem["loc"][0] == key
    )
    where = "defaults" if key in by_default else place
    # What stands for a token's digest may be the token, and that is not for the log.
    given = "" if key == "token_sha256" else f" = {json.dumps(table[key], default=str, ensure_ascii=False)}"
    raise InvalidInput(f"{where}: {key}{given}: {', or '.join(said)}", where=name)


def _unknown(key: str, name: str, fields: Sequence[str]) -> NoReturn:
    close = difflib.get_close_matches(re.split(r"[ .]", key)[-1], fields, n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(fields)}"
    raise InvalidInput(f"{key} is unknown", where=name, fix=fix)


def _check_distinct(known: Sequence[_Known], name: str) -> None:
    """No two tenants may be taken for each other."""
    for what, shown in (
        ("name", [one.tenant.name for one in known]),
        ("token_sha256", [one.token_sha256 for one in known if one.token_sha256]),
        ("certificate without a token", [one.certificate for one in known if not one.token_sha256]),
    ):
        if twice := _twice(shown):
            raise InvalidInput(f"two tenants have the {what} {twice!r}", where=name, fix="one of its own for each")


def _twice(values: Iterable[str | None]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
