"""Codecs that round numbers to a narrower floating-point type, to the nearest."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.codecs.tensors import Bytes, numbers, shaped, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array


@dataclass(frozen=True, slots=True)
class Cast:
    """Casts numbers to a type that NumPy has.

    The error of an element x is at most |x| 2^-24 for float32 and |x| 2^-11 for float16, or half the type's smallest
    positive number if that is larger.
    """

    name: str
    """The type: "float32" or "float16"."""
    additive: bool

    def encode(self, array: npt.NDArray[np.float64], where: str, rng: np.random.Generator) -> Array:
        with np.errstate(over="ignore"):
            cast = array.astype(self.name)
        if not np.isfinite(cast).all():
            largest = np.abs(array).max()
            raise InvalidTensor(
                f"{largest:.3g} is too large for {self.name}", where=where, fix="a codec of wider range"
            )
        return cast

    def form(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Returns the type and the shape that an array of that shape is encoded to."""
        return np.dtype(self.name), shape

    def decode(self, encoded: Array, shape: tuple[int, ...], where: str) -> npt.NDArray[np.float64]:
        return numbers(typed(shaped(encoded, shape, where), self.name, where), where)


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """Encodes x as the upper two bytes of its float32, little-endian. It has float32's range.

    The error of an element x is at most |x| 2^-7.99, or 2^-133.9 if that is larger.
    """

    name: str = "bfloat16"
    additive: bool = False

    def encode(self, array: npt.NDArray[np.float64], where: str, rng: np.random.Generator) -> Bytes:
        bits = Cast("float32", additive=True).encode(array, where, rng).ravel().view(np.uint32).astype(np.uint64)
        even = (bits >> np.uint64(16)) & np.uint64(1)  # ties go to the even neighbour
        upper = ((bits + np.uint64(0x7FFF) + even) >> np.uint64(16)).astype("<u2")
        if not np.isfinite(_widened(upper)).all():
            raise InvalidTensor(
                f"{np.abs(array).max():.3g} is too large for bfloat16", where=where, fix="numbers within its range"
            )
        return upper.view(np.int8)

    def form(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Returns the type and the shape that an array of that shape is encoded to."""
        return np.dtype(np.int8), (2 * math.prod(shape),)

    def decode(self, encoded: Array, shape: tuple[int, ...], where: str) -> npt.NDArray[np.float64]:
        data = typed(shaped(encoded, self.form(shape)[1], where), "int8", where)
        upper = np.ascontiguousarray(data).view("<u2")
        return numbers(_widened(upper), where).reshape(shape)


def _widened(upper: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)
