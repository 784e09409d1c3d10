"""Eight bits for each number: integers times a scale for each array, rounded at random so that no error has a side."""

from dataclasses import dataclass

import numpy as np

from fedbbpt.codecs.tensors import numbers, numeric, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array, Arrays

LEVELS = 127
SCALE = ".scale"


@dataclass(slots=True)
class Int8:
    """x becomes q = floor(x / s + u), u uniform in [0, 1), and the array `name.scale` carries s = max|x| / 127.

    Error of an element: less than s, and zero in expectation (stochastic rounding, as in QSGD, arXiv 1610.02132).
    """

    name: str = "int8"
    additive: bool = False

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        encoded: dict[str, Array] = {}
        for name, array in arrays.items():
            if not numeric(array):
                encoded[name] = array
                continue
            wide = numbers(array, name)
            scale = _scale(float(np.abs(wide).max(initial=0.0)), name)
            steps = np.floor(wide / float(scale) + rng.random(wide.shape)) if scale > 0 else np.zeros(wide.shape)
            encoded[name] = steps.astype(np.int8)
            encoded[name + SCALE] = np.array([scale])
        return encoded

    def decode(self, arrays: Arrays) -> Arrays:
        decoded: dict[str, Array] = {}
        for name in (name for name in arrays if not name.endswith(SCALE)):
            if not numeric(arrays[name]):
                decoded[name] = arrays[name]
                continue
            if name + SCALE not in arrays:
                raise InvalidTensor("has no scale", where=name, fix=f"an array {name}{SCALE} beside it")
            scale = numbers(typed(arrays[name + SCALE], "float32", name + SCALE), name + SCALE)
            if scale.shape != (1,):
                raise InvalidTensor(f"shape {scale.shape}", where=name + SCALE, fix="shape (1,)")
            decoded[name] = scale[0] * typed(arrays[name], "int8", name)
        return decoded


def _scale(largest: float, where: str) -> np.float32:
    """The float32 above largest / 127, so that no number leaves the 127 steps."""
    with np.errstate(over="ignore", under="ignore"):
        scale = np.nextafter(np.float32(largest / LEVELS), np.float32(np.inf)) if largest > 0 else np.float32(0)
    if not np.isfinite(scale):
        raise InvalidTensor(f"{largest:.3g} is too large for int8", where=where, fix="numbers within float32's range")
    return scale
