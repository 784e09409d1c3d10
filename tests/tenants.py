"""PTMs in this process, as one tenant sees them."""

from collections.abc import Callable
from typing import Any

from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.tenants.tenant import IN_PROCESS, Tenant


def ptm_of(backend: Backend[Any], **agreed: Any) -> LocalPtm:
    """Returns a PTM around the backend for a tenant with these settings."""
    return LocalPtm(Engine(backend, lambda: 0.0), Tenant(name="tenant", label_tokens="all", **agreed))


def local_ptm(backend: Backend[Any], clock: Callable[[], float] = lambda: 0.0) -> LocalPtm:
    """Returns a PTM around the backend for callers in this process, who have no limits."""
    return LocalPtm(Engine(backend, clock), IN_PROCESS)


def tokens(*texts: str) -> list[Token]:
    """Returns these tokens of clients, each with its own text as its member's name."""
    return [Token(text, Role.CLIENT, token_digest(text)) for text in texts]
