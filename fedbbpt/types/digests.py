"""Digests of contents: equal contents have the same digest in every process."""

import hashlib

SIZE = 16
"""Bytes of a digest."""


def digest(*parts: bytes | str | int) -> bytes:
    """Returns a digest of a list of parts, SIZE bytes.

    Each part is preceded by its length, so that different lists never produce the same bytes.
    """
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()[:SIZE]
