"""Identifies tenants by their tokens and certificates.

Only the SHA-256 of a token is kept, here and in the tenants file, so a reader of either cannot call the service.
"""

import hmac
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedbbpt.errors import InvalidInput, Unauthenticated
from fedbbpt.identity.tokens_file import Token
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

    def __init__(
        self,
        registered: Sequence[RegisteredTenant],
        where: str = "tenants",
        revoked: frozenset[str] = frozenset(),
    ) -> None:
        """Raises InvalidInput with `where` if two tenants share a name or credentials.

        `revoked` has the serial numbers (hexadecimal) of certificates that are valid no longer.
        """
        _check_distinct(registered, where)
        self._registered, self._revoked = registered, revoked

    def without(self, revoked: frozenset[str]) -> "Tenants":
        """Returns the same tenants, none of whom is known by a certificate with one of these serial numbers."""
        return Tenants(self._registered, revoked=revoked)

    def check_certificate(self, serial: str) -> None:
        """Raises Unauthenticated if the certificate with this serial number (hexadecimal) was revoked."""
        if serial in self._revoked:
            what, fix = "the certificate was revoked", "a new invitation from the operator of its authority"
            raise Unauthenticated(what, where="certificate", fix=fix)

    def __iter__(self) -> Iterator[Tenant]:
        return iter({registered.tenant.name: registered.tenant for registered in self._registered}.values())

    @staticmethod
    def anyone(tenant: Tenant = ANYONE) -> "Tenants":
        """Returns a registry in which every caller is the same tenant."""
        return Tenants([RegisteredTenant(tenant)])

    @staticmethod
    def of_tokens(tokens: Sequence[Token], agreement: Tenant = ANYONE) -> "Tenants":
        """Returns a registry with a tenant for each member that has a token, all with one agreement.

        Raises InvalidInput if a member has tokens of two roles.
        """
        named = [agreement.model_copy(update={"name": token.name, "role": token.role}) for token in tokens]
        digests = [token.sha256 for token in tokens]
        return Tenants([RegisteredTenant(*pair) for pair in zip(named, digests, strict=True)], "tokens")

    def identify(self, shown: str | None, certificate_names: Sequence[str]) -> Tenant:
        """Returns the tenant of a call.

        A token identifies its tenant, which must show its certificate too if it has one. Without a token, the
        certificate identifies the tenant.

        Args:
            shown: The SHA-256 of the call's token, or None without one.
            certificate_names: The names (CN, SAN) in the verified client certificate.

        Raises:
            Unauthenticated: The credentials belong to no tenant, or to more than one.
        """
        # No early exit: comparing all tenants keeps the duration independent of which one matches.
        found = [registered for registered in self._registered if _matches(registered, shown, certificate_names)]
        if len(found) != 1:
            what = "the certificate belongs to two tenants" if found else "no known token or certificate"
            fix = "--ptm-token-file with this service's token, or the certificate that it knows"
            raise Unauthenticated(what, where="authorization", fix=fix)
        return found[0].tenant


def _matches(registered: RegisteredTenant, shown: str | None, certificate_names: Sequence[str]) -> bool:
    if registered.token_sha256 is None and registered.certificate is None:
        return True
    own_token = hmac.compare_digest(registered.token_sha256 or "", shown or "-")
    own_name = registered.certificate in certificate_names
    # A caller that shows a token must be known by it; its certificate alone does not identify it then.
    token_matches = own_token == bool(shown or registered.token_sha256)
    return token_matches and (own_name or registered.certificate is None)


def _check_distinct(registered: Sequence[RegisteredTenant], where: str) -> None:
    for what, values in (
        ("name", [tenant.name for tenant in _different(registered)]),
        ("token_sha256", [one.token_sha256 for one in registered if one.token_sha256]),
        ("certificate without a token", [one.certificate for one in registered if not one.token_sha256]),
    ):
        if twice := _duplicate(values):
            raise InvalidInput(f"two tenants have the {what} {twice!r}", where=where, fix="a different one for each")


def _different(registered: Sequence[RegisteredTenant]) -> list[Tenant]:
    """Returns the tenants, each once: one of a tokens file may have two tokens, the new one and the one before."""
    found = list[Tenant]()
    for one in registered:
        if one.certificate is not None or one.tenant not in found:
            found.append(one.tenant)
    return found


def _duplicate(values: Iterable[str | None]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
