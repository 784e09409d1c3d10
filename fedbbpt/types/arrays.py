"""Arrays and their meanings: candidates, losses, scores."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
"""Named arrays. Clients and coordinator exchange these and nothing else."""
Forms: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""The type and the shape of named arrays."""
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
    """The second-order expansion of a loss around a = 0, for N numbers a: loss + gradient a + a hessian a / 2.

    The first P of the numbers mix candidates, so that the loss at each of their unit vectors is known exactly.
    """

    losses: npt.NDArray[np.float64]
    """The loss at 0, and at each candidate, `[1 + P]`."""
    gradient: npt.NDArray[np.float64]
    """The first derivatives at 0, `[N]`."""
    hessian: npt.NDArray[np.float64]
    """The second derivatives at 0, `[N, N]`."""


def pack(state: Any) -> dict[str, Array]:
    """Returns the fields of a dataclass of arrays and numbers as arrays, for a store to keep.

    A field that is itself such a dataclass becomes several arrays, whose names begin with its own and a dot.
    """
    arrays: dict[str, Array] = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if is_dataclass(value):
            arrays.update({f"{field.name}.{name}": array for name, array in pack(value).items()})
        else:
            arrays[field.name] = np.asarray(value)
    return arrays


S = TypeVar("S")


_HINTS: dict[type, Mapping[str, Any]] = {}
"""The types of the fields of states, since looking them up takes longer than reading a state."""


def _types(cls: type) -> Mapping[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


def unpack(cls: type[S], arrays: Arrays) -> S:
    """Returns the dataclass that `pack` turned into `arrays`. Zero-dimensional arrays become numbers again."""
    types, values = _types(cls), {}
    for name in {name.partition(".")[0] for name in arrays}:
        if is_dataclass(types[name]):
            inner = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
            values[name] = unpack(types[name], inner)
        else:
            values[name] = arrays[name] if arrays[name].ndim else arrays[name].item()
    return cls(**values)
