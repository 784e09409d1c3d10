"""Checksums of whole messages, for links without TLS, which protects each bit by itself.

A caller that says `fedbbpt-crc32c: 1` in its metadata ends each message with the CRC32C of its bytes, in a field that
no message has, so that parsers skip it. A service that reads this answers in the same way, and refuses a message whose
checksum is missing or wrong with DATA_LOSS. Other callers and services send no checksums, and none are asked of them.
"""

import google_crc32c

from fedbbpt.errors import ChecksumMismatch

METADATA = ("fedbbpt-crc32c", "1")
_TAG = b"\xc5\x3e"
"""The tag of field 1000 with four bytes (fixed32)."""
CHECKSUM_BYTES = len(_TAG) + 4
"""What a checksum adds to a message."""
UNREADABLE = "Exception deserializing response!"
"""What grpc says of an answer that cannot be read."""


def sealed(data: bytes) -> bytes:
    """Returns a message with its checksum."""
    checksum: int = google_crc32c.value(data)
    return data + _TAG + checksum.to_bytes(4, "little")


def is_sealed(data: bytes) -> bool:
    """Returns whether a message ends with its checksum."""
    return data[-CHECKSUM_BYTES:] == sealed(data[:-CHECKSUM_BYTES])[-CHECKSUM_BYTES:]


def looks_sealed(data: bytes) -> bool:
    """Returns whether a message seems to end with a checksum, right or wrong."""
    return data[-CHECKSUM_BYTES:].startswith(_TAG)


def unsealed(data: bytes) -> bytes:
    """Returns a message without its checksum. Raises ChecksumMismatch if the checksum is missing or wrong."""
    if not is_sealed(data):
        fix = "the same call again, or TLS"
        raise ChecksumMismatch("the message was corrupted in transit", where="message", fix=fix)
    return data[:-CHECKSUM_BYTES]
