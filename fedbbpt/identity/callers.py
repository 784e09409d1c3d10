"""A caller of the coordinator, as its credentials identify it."""

from dataclasses import dataclass

from fedbbpt.errors import NotPermitted
from fedbbpt.identity.roles import EVERY, Role, roles_of


@dataclass(frozen=True, slots=True)
class Caller:
    """The party that makes a call, and its roles."""

    name: str
    """The name in its token or certificate, which is its only client id; empty: it may take any."""
    roles: frozenset[Role]
    runs: frozenset[str] | None = None
    """The runs whose own tokens include the caller's; None for a caller that the coordinator itself knows."""
    proof: str = ""
    """Digest of the token, or serial number of the certificate, by which the caller is known."""

    def check_may_call(self, method: str) -> None:
        """Raises NotPermitted unless one of the caller's roles may call the method."""
        check_role(self.name, self.roles, method)


EVERYBODY = Caller("", EVERY)
"""The caller of a service that requires no credentials."""


def check_role(name: str, roles: frozenset[Role], method: str) -> None:
    """Raises NotPermitted unless one of the roles may call the method."""
    allowed = roles_of(method)
    if not roles & allowed:
        fix = f"credentials of the role {' or '.join(sorted(allowed))}"
        what = f"{name or 'the caller'} has the role {', '.join(sorted(roles))}, which may not call this"
        raise NotPermitted(what, where=method.rpartition("/")[2], fix=fix)
