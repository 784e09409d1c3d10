"""Arithmetic of the kit's own: losses of scores, and what two ends may differ by."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.results import Broken

Vector = npt.NDArray[np.float64]
NOISE, SLACK = 1e-12, 1e-14
"""The relative and the absolute difference in float64 that orders of sums and mathematical libraries explain."""


def unit(weight: float) -> float:
    """Returns the largest power of two that is at most the weight."""
    return 2.0 ** (math.frexp(weight)[1] - 1)


def shifted(scores: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns scores `[B, K]` with a quarter of the offsets `[K]` added, in float32."""
    return scores + np.float32(0.25) * offsets if len(offsets) else scores


def losses(scores: npt.NDArray[np.floating], labels: Sequence[int]) -> Vector:
    """Returns the cross-entropy of each example `[B]` in float64."""
    found = []
    for row, label in zip(scores.tolist(), labels, strict=True):
        top = max(row)
        found.append(top + math.log(math.fsum(math.exp(each - top) for each in row)) - row[label])
    return np.array(found)


def hits(scores: npt.NDArray[np.floating], labels: Sequence[int]) -> int:
    """Returns the number of examples whose class has the highest score, the first of several with that score."""
    return sum(
        max(range(len(row)), key=lambda k: row[k]) == label for row, label in zip(scores.tolist(), labels, strict=True)
    )


def require_float32(name: str, found: npt.NDArray[np.floating], wanted: Vector, noise: float = NOISE) -> None:
    """Raises Broken unless each number is the wanted one, rounded to float32.

    Args:
        name: The name of the array, for the message.
        found: The numbers that came.
        wanted: The right numbers, in float64.
        noise: The relative difference that is allowed before rounding.
    """
    slack = noise * np.abs(wanted) + SLACK
    least, most = (wanted - slack).astype(np.float32), (wanted + slack).astype(np.float32)
    wrong = ~((found >= least) & (found <= most))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        place = f"[{', '.join(map(str, at))}]"
        raise Broken(
            f"{name}{place} is {float(found[at])!r}; expected {float(np.float32(wanted[at]))!r} "
            f"({int(wrong.sum())} of {wrong.size} numbers differ)"
        )


def require_close(name: str, found: float, wanted: float, tolerance: float = 1e-9) -> None:
    """Raises Broken unless a number is the wanted one, up to a relative difference."""
    if not abs(found - wanted) <= tolerance * max(1.0, abs(wanted)):
        raise Broken(f"{name} is {found!r}; expected {wanted!r}")
