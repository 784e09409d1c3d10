"""Randomness by coordinates: every draw is a function of a run's seed and of where it is made.

No generator is ever stored or sent, so a run that goes on after a crash draws what it would have drawn. `rng` serves
draws that one process makes for itself. `uniforms`, `normals` and `signs` serve draws that two processes must agree on,
whatever language they are written in: they read SHAKE-256 and are specified, with test vectors, in docs/protocol.md.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt


def derive(seed: int, *path: str | int) -> int:
    """A 64-bit seed for the place `path` under `seed`: the first 8 bytes, little-endian, of the SHA-256 of their lines.

    >>> derive(0, "task", 3) == derive(0, "task", 3) != derive(0, "task", 4)
    True
    """
    text = "\n".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rng(seed: int, *path: str | int) -> np.random.Generator:
    """A fresh generator for the place `path` under `seed`."""
    return np.random.Generator(np.random.Philox(derive(seed, *path)))


BLOCK = 2**20
"""Even: a pair of uniforms gives a pair of normals."""


def _stream(seed: int, length: int) -> bytes:
    """The first `length` bytes of SHAKE-256 over the seed's 8 little-endian bytes."""
    return hashlib.shake_256(seed.to_bytes(8, "little")).digest(length)


def signs(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """+1 and -1, row-major: bit i of the stream (least significant first in each byte), 1 gives +1 and 0 gives -1."""
    count = math.prod(shape)
    return signs_of(sign_bits(seed, count), count).reshape(shape)


def sign_bits(seed: int, count: int) -> npt.NDArray[np.uint8]:
    """The stream's bytes that hold the bits of so many signs, read-only."""
    return np.frombuffer(_stream(seed, -(-count // 8)), np.uint8)


def signs_of(bits: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """The first `count` of them."""
    ones = np.unpackbits(bits[: -(-count // 8)], count=count, bitorder="little").view(np.int8)
    return 2 * ones - np.int8(1)


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """In (0, 1): (top 53 bits of each little-endian 64-bit word + 1/2) / 2^53."""
    return _uniform(np.frombuffer(_stream(seed, 8 * count), "<u8"))


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normals(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """N(0, 1), row-major, by Box-Muller: uniforms (u, v) give sqrt(-2 ln u) times cos(2 pi v), then sin(2 pi v)."""
    drawn = np.empty(shape)
    _fill(drawn.reshape(-1), seed)
    return drawn


def normals32(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The same, each rounded to float32, in half the memory; read-only."""
    drawn = np.empty(shape, np.float32)
    _fill(drawn.reshape(-1), seed)
    drawn.setflags(write=False)
    return drawn


def _fill(drawn: npt.NDArray[np.floating], seed: int) -> None:
    """With normals, some at a time: all at once would take many times what is drawn."""
    words = np.frombuffer(_stream(seed, 16 * (-(-len(drawn) // 2))), "<u8")
    for start in range(0, len(words), BLOCK):
        pairs = _uniform(words[start : start + BLOCK]).reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log(pairs[:, 0]))
        angle = 2.0 * np.pi * pairs[:, 1]
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        drawn[start : start + BLOCK] = both.reshape(-1)[: len(drawn) - start]
