"""What all codecs ask of an array. One of uint8 holds no numbers, and no codec touches it."""

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.types import Array


def numeric(array: Array) -> bool:
    return array.dtype != np.uint8


def numbers(array: Array, where: str) -> npt.NDArray[np.float64]:
    """As float64. Raises InvalidTensor where an element is NaN or infinite."""
    widened = array.astype(np.float64)
    if not np.isfinite(widened).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")
    return widened


def typed(array: Array, dtype: str, where: str) -> Array:
    """The array itself. Raises InvalidTensor where its elements are of another type."""
    if array.dtype != np.dtype(dtype):
        raise InvalidTensor(f"elements of type {array.dtype}", where=where, fix=dtype)
    return array
