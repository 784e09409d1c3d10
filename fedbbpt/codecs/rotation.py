"""A random rotation, which makes the numbers of an array about equally large, so that a quantiser's one scale fits all.

It is a randomised Hadamard transform (Suresh et al., arXiv 1611.00429): y = H D x / sqrt(m), with m the next power of
two, x padded with zeros, signs D and the Hadamard matrix H. It preserves lengths.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.codecs.integers import SHORT
from fedbbpt.codecs.tensors import shaped

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates each array, flattened, by signs that follow from its name. Arrays of fewer than SHORT are unchanged."""

    name: str = "rotate"

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape `[m]` of a rotated array."""
        count = math.prod(shape)
        return shape if count < SHORT else (1 << (count - 1).bit_length(),)

    def forward(self, array: Vector, where: str) -> Vector:
        """Returns the rotated array."""
        if array.size < SHORT:
            return array
        padded = np.zeros(self.shape(array.shape))
        padded[: array.size] = array.ravel()
        return _hadamard(padded * _signs(where, len(padded)))

    def backward(self, rotated: Vector, shape: tuple[int, ...], where: str) -> Vector:
        """Returns the array of that shape which was rotated."""
        count = math.prod(shape)
        if count < SHORT:
            return rotated
        back = _hadamard(shaped(rotated, self.shape(shape), where)) * _signs(where, len(rotated))
        return back[:count].reshape(shape)


def _signs(name: str, count: int) -> Vector:
    return seeds.signs(seeds.derive(0, "rotate", name), (count,)).astype(np.float64)


def _hadamard(x: Vector) -> Vector:
    """Returns H x / sqrt(m) for a vector of a power of two, by log2(m) passes of sums and differences."""
    y, step = x, 1
    while step < len(x):
        pairs = y.reshape(-1, 2, step)
        y = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        step *= 2
    return y / math.sqrt(len(x))
