"""The release of a round's sum: contributions are clipped, added up, and get noise in proportion to the clip norm."""

import math
from collections.abc import Mapping

import numpy as np

from fedbbpt.errors import InvalidUpdate
from fedbbpt.privacy.noise import normals
from fedbbpt.types import Arrays, Update

ROUNDING = 2.0**-22
"""Four times the relative error of rounding to float32: at a client and at a relay, in each of two neighbours."""


def norm(arrays: Arrays) -> float:
    """Returns the Euclidean norm of all numbers of the arrays together."""
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values()))


def clipped(arrays: Arrays, clip_norm: float) -> Arrays:
    """Returns the arrays, scaled down to a norm of `clip_norm` together if it is larger."""
    length = norm(arrays)
    factor = min(1.0, clip_norm / length) if length else 1.0
    # The product may round up by a few digits, and the norm of a float64 is known no better.
    factor = factor if factor == 1.0 else factor * (1 - 1e-12)
    return {name: factor * np.asarray(array, np.float64) for name, array in arrays.items()}


def check_clipped(update: Update, clip_norm: float) -> None:
    """Raises InvalidUpdate if a client cannot have clipped its `weight` examples to `clip_norm` each."""
    longest = update.weight * clip_norm
    if norm(update.arrays) > longest * (1 + 1e-5):
        what = f"a sum of norm {norm(update.arrays):.6g} over {update.weight:.0f} examples"
        fix = f"at most {longest:.6g}: contributions of examples clipped to {clip_norm:g} each"
        raise InvalidUpdate(what, where="arrays", fix=fix)


def sensitivity(clip_norm: float, examples: float) -> float:
    """Returns by how much one example can change the sum of a client with so many, which it sends as float32.

    The sum's norm is at most examples x clip_norm, and with it the error of rounding it, in both of two neighbours.
    """
    return clip_norm * (1 + ROUNDING * examples)


def noised(arrays: Arrays, deviation: float) -> Arrays:
    """Returns the arrays with independent Gaussian noise of this standard deviation on each number."""
    drawn = normals(sum(array.size for array in arrays.values()))
    parts = _parts(drawn, {name: array.shape for name, array in arrays.items()})
    return {name: np.asarray(array, np.float64) + deviation * parts[name] for name, array in arrays.items()}


def _parts(numbers: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    found, start = dict[str, np.ndarray](), 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = numbers[start : start + size].reshape(shape)
        start += size
    return found
