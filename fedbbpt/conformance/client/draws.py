"""The draws of docs/protocol.md, "Draws that both ends make", computed plainly."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def derive(seed: int, *parts: str | int) -> int:
    """Returns the seed of a place under a seed."""
    text = "\n".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _stream(seed: int, length: int) -> bytes:
    return hashlib.shake_256(seed.to_bytes(8, "little")).digest(length)


def uniforms(seed: int, count: int) -> list[float]:
    """Returns numbers in (0, 1)."""
    words = np.frombuffer(_stream(seed, 8 * count), "<u8")
    return [((int(word) >> 11) + 0.5) / 2.0**53 for word in words]


def normals(seed: int, shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns numbers from N(0, 1), row-major."""
    count = math.prod(shape)
    found: list[float] = []
    drawn = uniforms(seed, 2 * -(-count // 2))
    for u, v in zip(drawn[::2], drawn[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(u))
        found += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return np.array(found[:count]).reshape(shape)


def signs(seed: int, count: int) -> npt.NDArray[np.int8]:
    """Returns random signs."""
    data = _stream(seed, -(-count // 8))
    return np.array([1 if data[i // 8] >> i % 8 & 1 else -1 for i in range(count)], np.int8)
