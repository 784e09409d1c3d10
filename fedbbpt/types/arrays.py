"""Arrays and their meanings: candidates, losses, scores."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
"""Named arrays. Clients and coordinator exchange these and nothing else."""
Metrics: TypeAlias = Mapping[str, float]
"""Measurements of a round by name."""
Population: TypeAlias = npt.NDArray[np.float64]
"""Candidates `[P, n]`."""
Losses: TypeAlias = npt.NDArray[np.float64]
"""A loss for each candidate, `[P]`; lower is better."""
Scores: TypeAlias = npt.NDArray[np.float32]
"""Scores of the classes, `[P, B, K]`: logits or log-probabilities."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The second-order expansion of a loss around a = 0, for N numbers a: loss + gradient a + a hessian a / 2."""

    loss: float
    gradient: npt.NDArray[np.float64]
    """The first derivatives at 0, `[N]`."""
    hessian: npt.NDArray[np.float64]
    """The second derivatives at 0, `[N, N]`."""


def pack(state: Any) -> dict[str, Array]:
    """Returns the fields of a dataclass of arrays and numbers as arrays, for a store to keep."""
    return {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}


S = TypeVar("S")


def unpack(cls: type[S], arrays: Arrays) -> S:
    """Returns the dataclass that `pack` turned into `arrays`. Zero-dimensional arrays become numbers again."""
    return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
