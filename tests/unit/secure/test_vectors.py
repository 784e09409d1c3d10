"""The golden vectors of secure aggregation, for clients in other languages: every computation, step by step.

`python -m tests.unit.secure.test_vectors` writes them; a change of theirs is a change of the protocol.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbbpt.privacy.discrete_gaussian import samples
from fedbbpt.privacy.shares import bounded, noisy
from fedbbpt.secure import masks, shamir
from fedbbpt.secure.fixed_point import Layout, decoded, encoded, summed
from fedbbpt.secure.graph import degree, graph, needed
from fedbbpt.secure.messages import Attempt, Keys, Roster, signed_text
from fedbbpt.types import Measurement, NoiseShare, Update

VECTORS = Path(__file__).parents[3] / "fedbbpt/conformance/vectors/secure.json"
EPOCH, ATTEMPT, ROUND = 1234567890123, 5, 17


def computed() -> dict[str, Any]:
    """Returns all vectors."""
    private = [bytes(range(index, index + 32)) for index in range(3)]
    agreement = [X25519PrivateKey.from_private_bytes(each) for each in private]
    signing = [Ed25519PrivateKey.from_private_bytes(each) for each in private]
    names = ["anna", "ben", "zoë"]
    members = tuple(
        (name, Keys(one.public_key().public_bytes_raw(), other.public_key().public_bytes_raw()))
        for name, one, other in zip(names, agreement, signing, strict=True)
    )
    roster = Roster(EPOCH, members)
    pair = masks.agreed(agreement[0], members[1][1].agreement)
    secret = int.from_bytes(bytes(range(15)), "little")
    seed = masks.pair_seed(pair, EPOCH, ATTEMPT)
    key = masks.share_key(pair, EPOCH, 0)
    coefficients = [secret, 3**70, 5**50]
    shares = shamir.evaluated(coefficients, [1, 2, 3, 4])
    text = signed_text(roster.digest(), Attempt(EPOCH, ATTEMPT, ROUND), (2,))
    updates = [
        Update({"losses": np.array([0.1, -2.5, 1e6])}, 12.0, Measurement(3.75, 10, 4, 120)),
        Update({"losses": np.array([0.2, 2.25, -3.0])}, 7.0, Measurement(1.5, 5, None, 60)),
    ]
    vectors = [encoded(update) for update in updates]
    total = summed(vectors)
    layout = Layout({"losses": (3,)}, 0)
    return {
        "roster": {
            "epoch": EPOCH,
            "client_ids": names,
            "private_keys": [each.hex() for each in private],
            "agreement": [keys.agreement.hex() for _, keys in members],
            "verification": [keys.verification.hex() for _, keys in members],
            "clients": roster.clients().hex(),
            "digest": roster.digest().hex(),
        },
        "pair": {
            "clients": [0, 1],
            "x25519": agreement[0].exchange(agreement[1].public_key()).hex(),
            "key": pair.hex(),
            "attempt": ATTEMPT,
            "seed": seed.hex(),
            "mask_of_4": _bytes(masks.mask(seed, 4)),
        },
        "self": {
            "secret": str(secret),
            "seed": masks.self_seed(secret, EPOCH, ATTEMPT).hex(),
            "mask_of_4": _bytes(masks.mask(masks.self_seed(secret, EPOCH, ATTEMPT), 4)),
        },
        "shamir": {
            "prime": str(shamir.PRIME),
            "coefficients": [str(each) for each in coefficients],
            "places": [1, 2, 3, 4],
            "shares": [each.to_bytes(16, "little").hex() for each in shares],
            "secret_of_places_1_3_4": str(shamir.combined({1: shares[0], 3: shares[2], 4: shares[3]})),
        },
        "box": {
            "sender": 0,
            "key": key.hex(),
            "shares": b"".join(each.to_bytes(16, "little") for each in shares).hex(),
            "box": masks.sealed(key, b"".join(each.to_bytes(16, "little") for each in shares), roster.digest()).hex(),
        },
        "signature": {
            "attempt": ATTEMPT,
            "round": ROUND,
            "dropped": [2],
            "text": text.hex(),
            "signature_of_0": signing[0].sign(text).hex(),
        },
        "fixed_point": {
            "losses": [update.arrays["losses"].tolist() for update in updates],
            "weights": [update.weight for update in updates],
            "measurements": [
                [each.dev_loss_sum, each.dev_examples, each.dev_correct, each.queries]
                for each in (update.measurement for update in updates)
            ],
            "vectors": [_bytes(vector) for vector in vectors],
            "sum": _bytes(total),
            "sum_of_losses": decoded(total, layout)[0].arrays["losses"].tolist(),
        },
        "noise": {
            "stream": "noise",
            "deviations": [1, 16, 1000, 2**45],
            "samples": [samples(6, deviation, _stream(b"noise")).tolist() for deviation in (1, 16, 1000, 2**45)],
            "mean": [0.3, -0.4, 12.0],
            "clip_norm": 0.5,
            "bounded": _bytes(bounded_vector := encoded(_bounded(np.array([0.3, -0.4, 12.0]), 0.5))),
            "deviation": 1000,
            "noisy": _bytes(noisy(bounded_vector, 3, NoiseShare(1000, 3, 0.5), _stream(b"noise"))),
        },
        "graph": {
            "neighbours": {str(number): degree(number, 0.67) for number in (3, 31, 32, 64, 128, 512)},
            "needed": {str(number): needed(degree(number, 0.67), 0.67) for number in (3, 31, 32, 64, 128, 512)},
            "clients": "00" * 32,
            "number": 40,
            "of_client_0": list(graph(40, 0.67, bytes(32))[0]),
            "of_client_39": list(graph(40, 0.67, bytes(32))[39]),
        },
    }


def _stream(seed: bytes) -> Callable[[int], bytes]:
    """Returns a reader of the SHAKE-256 of a seed."""
    whole, at = hashlib.shake_256(seed).digest(1 << 16), 0

    def read(count: int) -> bytes:
        nonlocal at
        at += count
        assert at <= len(whole), "the stream is long enough"
        return whole[at - count : at]

    return read


def _bounded(mean: npt.NDArray[np.float64], clip_norm: float) -> Update:
    """Returns what a client of 4 examples adds to a sum, whose `losses` have this mean."""
    update = Update({"losses": 4 * mean}, 4.0, Measurement(1.0, 2, 1, 12))
    return bounded(update, lambda arrays: arrays, NoiseShare(1000, 3, clip_norm), 0.0)


def _bytes(numbers: npt.NDArray[np.uint64]) -> str:
    """Returns numbers as they travel, in hexadecimal digits."""
    return numbers.astype("<u8").tobytes().hex()


def test_vectors_are_those_in_the_package() -> None:
    """Mutant: any change of a derivation, a byte order, a scale or the graph."""
    assert json.loads(VECTORS.read_text()) == computed()


def test_both_neighbours_derive_the_same_pair_key() -> None:
    """Mutant: a key that depends on who computes it."""
    one, other = (X25519PrivateKey.from_private_bytes(bytes([each]) * 32) for each in (1, 2))
    assert masks.agreed(one, other.public_key().public_bytes_raw()) == masks.agreed(
        other, one.public_key().public_bytes_raw()
    )


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(computed(), indent=2) + "\n")
