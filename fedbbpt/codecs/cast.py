"""A codec that casts numbers to a narrower floating-point type, rounded to the nearest."""

from dataclasses import dataclass

import numpy as np

from fedbbpt.codecs.tensors import numbers, numeric, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array, Arrays


@dataclass(slots=True)
class Cast:
    """Casts every array of numbers to one type.

    The error of an element x is at most |x| 2^-24 for float32 and |x| 2^-11 for float16, or half the type's smallest
    positive number if that is larger.
    """

    name: str
    """The type: "float32" or "float16"."""
    additive: bool
    """Whether the sum of encoded arrays decodes to the sum of the arrays, as `interfaces.Codec` has it."""

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        return {name: self._cast(array, name) if numeric(array) else array for name, array in arrays.items()}

    def decode(self, arrays: Arrays) -> Arrays:
        return {name: self._widen(array, name) if numeric(array) else array for name, array in arrays.items()}

    def _widen(self, array: Array, where: str) -> Array:
        return numbers(typed(array, self.name, where), where)

    def _cast(self, array: Array, where: str) -> Array:
        wide = numbers(array, where)
        with np.errstate(over="ignore"):
            cast = wide.astype(self.name)
        if not np.isfinite(cast).all():
            largest = np.abs(wide).max()
            raise InvalidTensor(
                f"{largest:.3g} is too large for {self.name}", where=where, fix="a codec of wider range"
            )
        return cast
