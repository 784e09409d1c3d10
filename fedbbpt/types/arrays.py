"""Arrays, and what they stand for: candidates, losses, scores."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
"""What crosses the wire between clients and coordinator, and nothing else."""
Metrics: TypeAlias = Mapping[str, float]
"""Sums and counts, never means: metrics add."""
Population: TypeAlias = npt.NDArray[np.float64]
"""Candidates `[P, n]`."""
Losses: TypeAlias = npt.NDArray[np.float64]
"""One loss a candidate `[P]`, lower is better."""
Scores: TypeAlias = npt.NDArray[np.float32]
"""Logits over classes `[P, B, K]`."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """A loss F(a) around a = 0 to second order: loss + gradient a + a hessian a / 2, for N numbers a."""

    loss: float
    gradient: npt.NDArray[np.float64]
    """`[N]`"""
    hessian: npt.NDArray[np.float64]
    """`[N, N]`"""


def pack(state: Any) -> dict[str, Array]:
    """A frozen dataclass of arrays and numbers as plain arrays, for a store to hold."""
    return {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}


S = TypeVar("S")


def unpack(cls: type[S], arrays: Arrays) -> S:
    """The inverse of `pack`: zero-dimensional arrays become numbers again."""
    return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
