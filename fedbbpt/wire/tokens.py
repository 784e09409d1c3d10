"""Bearer tokens, which are kept and compared as digests. Comparing digests takes no time that tells about a token."""

import hashlib
from typing import Any


def token_digest(token: str) -> str:
    """Returns the SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def shown_token(metadata: Any) -> str:
    """Returns the digest of the token that a call's metadata shows as `authorization: Bearer TOKEN`, or "".

    Services identify callers by their token, so a call with two tokens is ambiguous and shows none.
    """
    shown = [value for key, value in metadata or () if key == "authorization"]
    if len(shown) != 1:
        return ""
    text = shown[0] if isinstance(shown[0], str) else shown[0].decode(errors="surrogateescape")
    return token_digest(text.removeprefix("Bearer ")) if text.startswith("Bearer ") else ""
