"""Keys and masks: X25519 agreements, HMAC-SHA256 for further keys, and SHAKE-256 as the generator of masks.

A client makes dozens of short masks in a round. SHAKE-256, which the run's shared draws use already, makes one in half
the time that it takes to set up a stream cipher.

docs/protocol.md, "Secure aggregation", defines the bytes.
"""

import hashlib
import hmac
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
_NONCE = bytes(12)


def derived(key: bytes, purpose: str, *numbers: int) -> bytes:
    """Returns a key of 32 bytes: HMAC-SHA256 of the purpose in ASCII and the numbers, 8 bytes each, low byte first."""
    return hmac.digest(key, _text(purpose, *numbers), "sha256")


@lru_cache(maxsize=256)
def _text(purpose: str, *numbers: int) -> bytes:
    return purpose.encode("ascii") + b"".join(number.to_bytes(8, "little") for number in numbers)


def agreed(own: X25519PrivateKey, other: bytes) -> bytes:
    """Returns the key that two clients share: HMAC-SHA256 of their X25519 secret. Raises ValueError for a weak key."""
    return derived(own.exchange(X25519PublicKey.from_public_bytes(other)), "fedbbpt pair")


def pair_seed(pair: bytes, epoch: int, attempt: int) -> bytes:
    """Returns the seed of two clients' mask in one attempt. It tells nothing about the masks of other attempts."""
    return derived(pair, "mask", epoch, attempt)


def self_seed(secret: int, epoch: int, attempt: int) -> bytes:
    """Returns the seed of a client's own mask, whose secret its neighbours keep shares of."""
    return derived(secret.to_bytes(16, "little"), "self", epoch, attempt)


def mask(seed: bytes, length: int) -> npt.NDArray[np.uint64]:
    """Returns a mask: the SHAKE-256 of a seed, as `length` numbers of 64 bits."""
    return np.frombuffer(hashlib.shake_256(seed).digest(8 * length), "<u8")


def share_key(pair: bytes, epoch: int, sender: int) -> bytes:
    """Returns the key with which a client seals its shares for a neighbour, once."""
    return derived(pair, "shares", epoch, sender)


def sealed(key: bytes, shares: bytes, roster: bytes) -> bytes:
    """Returns shares encrypted with ChaCha20-Poly1305. The nonce is 0, since a key seals once."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, shares, roster)


def opened(key: bytes, box: bytes, roster: bytes) -> bytes:
    """Returns the shares in a box. Raises cryptography.exceptions.InvalidTag if anything of it was changed."""
    return ChaCha20Poly1305(key).decrypt(_NONCE, box, roster)
