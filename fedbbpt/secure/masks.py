"""Keys and masks: X25519 agreements, HMAC-SHA256 for further keys, and ChaCha20 as the generator of masks.

docs/protocol.md, "Secure aggregation", defines the bytes.
"""

import hmac

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
_COUNTER_AND_NONCE = bytes(16)
_NONCE = bytes(12)


def derived(key: bytes, purpose: str, *numbers: int) -> bytes:
    """Returns a key of 32 bytes: HMAC-SHA256 of the purpose in ASCII and the numbers, 8 bytes each, low byte first."""
    text = purpose.encode("ascii") + b"".join(number.to_bytes(8, "little") for number in numbers)
    return hmac.digest(key, text, "sha256")


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
    """Returns a mask: the ChaCha20 key stream of a seed, counter and nonce 0, as numbers of 64 bits."""
    stream = Cipher(algorithms.ChaCha20(seed, _COUNTER_AND_NONCE), None).encryptor().update(bytes(8 * length))
    return np.frombuffer(stream, "<u8")


def share_key(pair: bytes, epoch: int, sender: int) -> bytes:
    """Returns the key with which a client seals its shares for a neighbour, once."""
    return derived(pair, "shares", epoch, sender)


def sealed(key: bytes, shares: bytes, roster: bytes) -> bytes:
    """Returns shares encrypted with ChaCha20-Poly1305. The nonce is 0, since a key seals once."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, shares, roster)


def opened(key: bytes, box: bytes, roster: bytes) -> bytes:
    """Returns the shares in a box. Raises cryptography.exceptions.InvalidTag if anything of it was changed."""
    return ChaCha20Poly1305(key).decrypt(_NONCE, box, roster)
