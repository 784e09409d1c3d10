"""Randomness by coordinates: every draw depends only on the run's seed and on its place in the run.

No generator is ever stored or sent, so a run that continues after a crash draws the same numbers as without the crash.
`rng` is for draws that one process makes for itself. `uniforms`, `normals` and `signs` are for draws on which two
processes must agree, in any language: they read SHAKE-256, and docs/protocol.md specifies them with test vectors.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt


def derive(seed: int, *path: str | int) -> int:
    """Returns a 64-bit seed for the place `path` under `seed`.

    It is the first 8 bytes, little-endian, of the SHA-256 of the seed and the parts of the path, one a line.

    >>> derive(0, "task", 3) == derive(0, "task", 3) != derive(0, "task", 4)
    True
    """
    text = "\n".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rng(seed: int, *path: str | int) -> np.random.Generator:
    """Returns a new generator for the place `path` under `seed`."""
    return np.random.Generator(np.random.Philox(derive(seed, *path)))


BLOCK = 2**20
"""Words that become normals at a time. It is even, because a pair of uniforms gives a pair of normals."""


def _stream(seed: int, length: int) -> bytes:
    """Returns the first `length` bytes of SHAKE-256 over the seed's 8 little-endian bytes."""
    return hashlib.shake_256(seed.to_bytes(8, "little")).digest(length)


def signs(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Returns random +1 and -1, row-major.

    Bit i of the stream, least significant first in each byte, gives element i: 1 gives +1 and 0 gives -1.
    """
    count = math.prod(shape)
    return signs_of(sign_bits(seed, count), count).reshape(shape)


def sign_bits(seed: int, count: int) -> npt.NDArray[np.uint8]:
    """Returns the stream's bytes that hold the bits of `count` signs, read-only."""
    return np.frombuffer(_stream(seed, -(-count // 8)), np.uint8)


def signs_of(bits: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """Returns the first `count` signs of these bits."""
    ones = np.unpackbits(bits[: -(-count // 8)], count=count, bitorder="little").view(np.int8)
    return 2 * ones - np.int8(1)


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Returns uniform numbers in (0, 1): (top 53 bits of each little-endian 64-bit word + 1/2) / 2^53."""
    return _uniform(np.frombuffer(_stream(seed, 8 * count), "<u8"))


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normals(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Returns numbers from N(0, 1), row-major, by Box-Muller.

    Uniforms (u, v) give sqrt(-2 ln u) cos(2 pi v), then sqrt(-2 ln u) sin(2 pi v).
    """
    drawn = np.empty(shape)
    _fill(drawn.reshape(-1), seed)
    return drawn


def normals32(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Returns the numbers of `normals` rounded to float32, read-only, without ever holding all of them in float64."""
    drawn = np.empty(shape, np.float32)
    _fill(drawn.reshape(-1), seed)
    drawn.setflags(write=False)
    return drawn


def _fill(drawn: npt.NDArray[np.floating], seed: int) -> None:
    """Fills `drawn` with normals a block at a time, because intermediate results take several times the memory."""
    words = np.frombuffer(_stream(seed, 16 * (-(-len(drawn) // 2))), "<u8")
    for start in range(0, len(words), BLOCK):
        pairs = _uniform(words[start : start + BLOCK]).reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log(pairs[:, 0]))
        angle = 2.0 * np.pi * pairs[:, 1]
        part = drawn[start : start + BLOCK]
        part[::2] = radius * np.cos(angle)
        part[1::2] = (radius * np.sin(angle))[: len(part) // 2]
