"""Checks and conversions of arrays that all codecs share. Arrays of uint8 hold no numbers and are not encoded."""

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array

Bytes = npt.NDArray[np.int8]
"""Encoded numbers as bytes. The type is int8, because arrays of uint8 hold indices."""


def numeric(array: Array) -> bool:
    """Returns whether an array holds numbers, which a codec encodes."""
    return array.dtype != np.uint8


def numbers(array: Array, where: str) -> npt.NDArray[np.float64]:
    """Returns the array as float64. Raises InvalidTensor if an element is NaN or infinite."""
    widened = array.astype(np.float64)
    if not np.isfinite(widened).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")
    return widened


def typed(array: Array, dtype: str, where: str) -> Array:
    """Returns the array itself. Raises InvalidTensor if its elements are not of type `dtype`."""
    if array.dtype != np.dtype(dtype):
        raise InvalidTensor(f"elements of type {array.dtype}", where=where, fix=dtype)
    return array


def shaped(array: Array, shape: tuple[int, ...], where: str) -> Array:
    """Returns the array itself. Raises InvalidTensor if it has another shape."""
    if array.shape != shape:
        raise InvalidTensor(f"shape {array.shape}", where=where, fix=f"shape {shape}")
    return array
