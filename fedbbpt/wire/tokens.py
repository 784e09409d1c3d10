"""The bearer token that a call shows, read alike by both services."""

from typing import Any

from fedbbpt.errors import Unauthenticated
from fedbbpt.identity.tokens_file import token_digest

_SCHEME = "bearer"


def shown_token(metadata: Any) -> str | None:
    """Returns the SHA-256 of the token in a call's metadata, or None if it shows none.

    The metadata is `authorization: Bearer TOKEN`; the scheme is case-insensitive (RFC 7235).

    Raises:
        Unauthenticated: there are two values, or the value is no bearer token.
    """
    shown = [value for key, value in metadata or () if key == "authorization"]
    if not shown:
        return None
    if len(shown) > 1:
        raise Unauthenticated("more than one token", where="authorization", fix="one")
    text = shown[0] if isinstance(shown[0], str) else shown[0].decode(errors="surrogateescape")
    scheme, _, token = text.partition(" ")
    if scheme.lower() != _SCHEME or not token:
        raise Unauthenticated("not a bearer token", where="authorization", fix="Bearer TOKEN")
    return token_digest(token)
