"""An invitation: one word that a member needs to enrol."""

import base64
import hashlib
from dataclasses import dataclass

from fedbbpt.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token that works for one key and a short time, and the digest by which to recognise the authority."""

    token: str
    fingerprint: bytes
    """SHA-256 of the authority's certificate (DER)."""

    def __str__(self) -> str:
        """Returns the invitation as one word, TOKEN.FINGERPRINT, the latter in base64url without padding."""
        return f"{self.token}.{base64.urlsafe_b64encode(self.fingerprint).decode().rstrip('=')}"


def parse_invitation(text: str, where: str) -> Invitation:
    """Returns the invitation of a word. Raises InvalidInput."""
    token, _, fingerprint = text.strip().partition(".")
    try:
        digest = base64.urlsafe_b64decode(fingerprint + "=" * (-len(fingerprint) % 4))
    except ValueError:
        digest = b""
    if not token or len(digest) != hashlib.sha256().digest_size:
        raise InvalidInput("not an invitation", where=where, fix="the word that `fedbbpt admin invite` printed")
    return Invitation(token, digest)
