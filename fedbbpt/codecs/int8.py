"""A codec of eight bits for each number: integers times one scale for each array, with unbiased random rounding."""

from dataclasses import dataclass

import numpy as np

from fedbbpt.codecs.tensors import numbers, numeric, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array, Arrays

LEVELS = 127
SCALE = ".scale"


@dataclass(slots=True)
class Int8:
    """Encodes x as q = floor(x / s + u) with u uniform in [0, 1), and s = max|x| / 127 as an array `name.scale`.

    The error of an element is less than s, and zero in expectation (stochastic rounding, as in QSGD, arXiv 1610.02132).
    """

    name: str = "int8"
    additive: bool = False
    """False, because each client's arrays have their own scale."""

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
                raise InvalidTensor(
                    "the scale is missing", where=name, fix=f"an array {name}{SCALE} in the same update"
                )
            scale = numbers(typed(arrays[name + SCALE], "float32", name + SCALE), name + SCALE)
            if scale.shape != (1,):
                raise InvalidTensor(f"shape {scale.shape}", where=name + SCALE, fix="shape (1,)")
            decoded[name] = scale[0] * typed(arrays[name], "int8", name)
        return decoded


def _scale(largest: float, where: str) -> np.float32:
    """Returns the next float32 above largest / 127, so that no number needs more than 127 steps."""
    with np.errstate(over="ignore", under="ignore"):
        scale = np.nextafter(np.float32(largest / LEVELS), np.float32(np.inf)) if largest > 0 else np.float32(0)
    if not np.isfinite(scale):
        raise InvalidTensor(f"{largest:.3g} is too large for int8", where=where, fix="numbers within float32's range")
    return scale
