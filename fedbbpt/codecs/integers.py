"""Codecs of a few bits for each number: integers times one scale for each array, with unbiased random rounding."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.codecs.tensors import Bytes, numbers, shaped, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array

SCALE_BYTES = 4
SHORT = 8
"""Arrays of fewer numbers travel as float32, which takes hardly more bytes than a scale and integers."""


@dataclass(frozen=True, slots=True)
class Integers:
    """Encodes x as q = floor(x / s + u) with u uniform in [0, 1), and s = max|x| / levels.

    The bytes are s as float32, little-endian, and then the integers: one in a byte with 127 levels, two in a byte with
    7 levels, the first one in the lower four bits. The error of an element is less than s, and zero in expectation
    (stochastic rounding, as in QSGD, arXiv 1610.02132). Arrays of fewer than SHORT numbers travel as float32.
    """

    name: str
    levels: int
    """127 for one byte, 7 for half of one."""
    additive: bool = False
    """False, because each client's arrays have their own scale."""

    def encode(self, array: npt.NDArray[np.float64], where: str, rng: np.random.Generator) -> Array:
        scale = self._scale(float(np.abs(array).max(initial=0.0)), where)
        if array.size < SHORT:
            return array.astype(np.float32)
        flat = array.ravel()
        steps = np.floor(flat / float(scale) + rng.random(flat.shape)) if scale > 0 else np.zeros(flat.shape)
        return np.concatenate([np.array([scale], "<f4").view(np.int8), self._packed(steps.astype(np.int8))])

    def form(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Returns the type and the shape that an array of that shape is encoded to."""
        count = math.prod(shape)
        if count < SHORT:
            return np.dtype(np.float32), shape
        return np.dtype(np.int8), (SCALE_BYTES + (count if self.levels > 7 else -(-count // 2)),)

    def decode(self, encoded: Array, shape: tuple[int, ...], where: str) -> npt.NDArray[np.float64]:
        dtype, travelling = self.form(shape)
        data, count = typed(shaped(encoded, travelling, where), dtype.name, where), math.prod(shape)
        if count < SHORT:
            return numbers(data, where)
        scale = numbers(np.frombuffer(data[:SCALE_BYTES].tobytes(), "<f4"), where)
        return np.asarray(scale[0] * self._unpacked(data[SCALE_BYTES:], count)).reshape(shape)

    def _packed(self, steps: Bytes) -> Bytes:
        if self.levels > 7:
            return steps
        pairs = np.concatenate([steps, np.zeros(len(steps) % 2, np.int8)]).view(np.uint8).reshape(-1, 2)
        return ((pairs[:, 0] & 15) | (pairs[:, 1] << 4)).view(np.int8)

    def _unpacked(self, data: Array, count: int) -> npt.NDArray[np.float64]:
        if self.levels > 7:
            return data.astype(np.float64)
        halves = np.stack([data << 4, data], axis=1).ravel()[:count] >> 4  # shifts of int8 keep the sign
        return halves.astype(np.float64)

    def _scale(self, largest: float, where: str) -> np.float32:
        """Returns the next float32 above largest / levels, so that no number needs more steps than there are."""
        with np.errstate(over="ignore", under="ignore"):
            scale = np.nextafter(np.float32(largest / self.levels), np.float32(np.inf)) if largest else np.float32(0)
            fits = np.isfinite(scale) and np.isfinite(np.float32(largest))
        if not fits:
            what = f"{largest:.3g} is too large for {self.name}"
            raise InvalidTensor(what, where=where, fix="numbers within float32's range")
        return scale
