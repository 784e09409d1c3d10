"""Identifies tenants by their tokens and certificates.

Only the SHA-256 of a token is kept, here and in the tenants file, so a reader of either cannot call the service.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedbbpt.errors import InvalidInput, Unauthenticated
from fedbbpt.ptm.tenants.tenant import ANYONE, Tenant


@dataclass(frozen=True, slots=True)
class RegisteredTenant:
    """A tenant with its credentials: if it has both, it must show both; if it has none, every caller is this tenant."""

    tenant: Tenant
    token_sha256: str | None = None
    """Hexadecimal digest of the token."""
    certificate: str | None = None
    """Common name, or a subject alternative name, of the certificate."""


class Tenants:
    """All tenants of a service."""

    def __init__(self, registered: Sequence[RegisteredTenant], where: str = "tenants") -> None:
        """Raises InvalidInput with `where` if two tenants share a name or credentials."""
        _check_distinct(registered, where)
        self._registered = registered

    def __iter__(self) -> Iterator[Tenant]:
        return (registered.tenant for registered in self._registered)

    @staticmethod
    def anyone(tenant: Tenant = ANYONE) -> "Tenants":
        """Returns a registry in which every caller is the same tenant."""
        return Tenants([RegisteredTenant(tenant)])

    @staticmethod
    def of_tokens(tokens: Collection[str], agreement: Tenant = ANYONE) -> "Tenants":
        """Returns a registry with a tenant for each token, all with one agreement. Raises InvalidInput without tokens.

        A tenant's name is the first digits of its token's SHA-256.
        """
        digests = sorted({_sha256(token) for token in tokens})
        if not digests:
            raise InvalidInput("no token", where="tokens", fix="at least one")
        named = [agreement.model_copy(update={"name": digest[:8]}) for digest in digests]
        return Tenants([RegisteredTenant(*pair) for pair in zip(named, digests, strict=True)], "tokens")

    def identify(self, authorizations: Sequence[str], certificate_names: Sequence[str]) -> Tenant:
        """Returns the tenant of a call.

        A token identifies its tenant, which must show its certificate too if it has one. Without a token, the
        certificate identifies the tenant.

        Args:
            authorizations: The values of the call's `authorization` metadata.
            certificate_names: The names (CN, SAN) in the verified client certificate.

        Raises:
            Unauthenticated: The credentials belong to no tenant, or to more than one.
        """
        if len(authorizations) > 1:
            raise Unauthenticated("more than one token", where="authorization", fix="one")
        digests = [_sha256(_token(value)) for value in authorizations]
        # No early exit: comparing all tenants keeps the duration independent of which one matches.
        found = [registered for registered in self._registered if _matches(registered, digests, certificate_names)]
        if len(found) != 1:
            what = "the certificate belongs to two tenants" if found else "no known token or certificate"
            fix = "--ptm-token-file with this service's token, or the certificate that it knows"
            raise Unauthenticated(what, where="authorization", fix=fix)
        return found[0].tenant


def _token(value: str) -> str:
    """Returns the token of an `authorization` value, or the empty string, which no tenant has."""
    scheme, _, token = value.partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _matches(registered: RegisteredTenant, digests: Sequence[str], certificate_names: Sequence[str]) -> bool:
    if registered.token_sha256 is None and registered.certificate is None:
        return True
    own_token = any([hmac.compare_digest(registered.token_sha256 or "", digest) for digest in digests])
    own_name = registered.certificate in certificate_names
    # A caller that shows a token must be known by it; its certificate alone does not identify it then.
    token_matches = own_token == bool(digests or registered.token_sha256)
    return token_matches and (own_name or registered.certificate is None)


def _check_distinct(registered: Sequence[RegisteredTenant], where: str) -> None:
    for what, values in (
        ("name", [one.tenant.name for one in registered]),
        ("token_sha256", [one.token_sha256 for one in registered if one.token_sha256]),
        ("certificate without a token", [one.certificate for one in registered if not one.token_sha256]),
    ):
        if twice := _duplicate(values):
            raise InvalidInput(f"two tenants have the {what} {twice!r}", where=where, fix="a different one for each")


def _duplicate(values: Iterable[str | None]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
