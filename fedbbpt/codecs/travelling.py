"""The form in which the arrays of an update travel: scaled, and as differences, which codecs encode with less error.

Arrays are already multiplied by the weight of their update, which may be thousands of examples and more than float16
can hold. So they are divided by `unit` of the weight on the way, a power of two, which costs no digit. An array that
has the name and the shape of one in the broadcast is a point that a search reached from there, and travels as the
difference to it, which is smaller than the point itself.
"""

import math

import numpy as np

from fedbbpt.codecs.tensors import numeric
from fedbbpt.types import Array, Arrays


def unit(weight: float) -> float:
    """Returns the largest power of two that is at most the weight."""
    return math.ldexp(1.0, math.frexp(weight)[1] - 1)


def packed(arrays: Arrays, weight: float, broadcast: Arrays) -> Arrays:
    """Returns the arrays of an update in the form in which a codec encodes them."""

    def pack(name: str, array: Array) -> Array:
        return np.asarray((array - _start(name, array, weight, broadcast)) / unit(weight))

    return {name: pack(name, array) if numeric(array) else array for name, array in arrays.items()}


def unpacked(arrays: Arrays, weight: float, broadcast: Arrays) -> Arrays:
    """Returns the arrays of an update from the form in which they travelled."""

    def unpack(name: str, array: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(unit(weight) * array + _start(name, array, weight, broadcast))

    return {name: unpack(name, array) if numeric(array) else array for name, array in arrays.items()}


def _start(name: str, array: Array, weight: float, broadcast: Arrays) -> Array | float:
    """Returns the point times the weight that a search began at; 0 if the array is not a point that it reached."""
    if name not in broadcast or broadcast[name].shape != array.shape:
        return 0.0
    return np.asarray(weight * broadcast[name].astype(np.float64))
