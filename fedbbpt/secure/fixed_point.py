"""Updates as numbers of fixed point in the ring of 64 bits, whose sums are exact and do not depend on their order.

A number x becomes round(x 2^24), and a count stays a count. Each number is within 2^-25 of what it was, so a sum over n
clients is within n 2^-25 of the plain one. LARGEST bounds what a client may add, and MOST_CLIENTS times that fits into
63 bits, so that no sum overflows.

A vector holds the arrays by their names in ascending order, row by row; the weight; the measurement, and that of each
finalist: dev_loss_sum, dev_examples, dev_correct, 1 if dev_correct is absent, queries; and at last the number of
clients, 1. The coordinator knows the number of clients in a sum, so an attempt that unmasks wrongly shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidUpdate
from fedbbpt.types import Measurement, Update

SCALE = 2.0**24
LARGEST = 2**51
"""The largest magnitude of a number of one client, in units of 1 / SCALE."""
MOST_CLIENTS = 2**63 // LARGEST - 1
"""4095, so that a sum is below 2^63."""
LEAST_DEVIATION, MOST_DEVIATION = 16, 2**45
"""The smallest and the largest deviation of the noise on a number of one client, in units of 1 / SCALE.

Below the smallest one, the sum of the clients' noise is too unlike a discrete Gaussian. Above the largest one, it could
leave the ring.
"""
NOISE_ROOM = 32 * MOST_DEVIATION
"""The part of a client's range that is left to noise. Noise exceeds it with a probability below 10^-220."""
_COUNTS = 5
"""Numbers of a measurement."""

VALUES = "fixed point"
"""The only array of an update in a secure run, int64 `[L]`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a round's vectors."""

    shapes: Mapping[str, tuple[int, ...]]
    """The arrays of an update."""
    finalists: int
    """The number of prompts that the round measures besides the broadcast one."""

    @property
    def length(self) -> int:
        """The number of numbers of a vector, L."""
        return sum(map(math.prod, self.shapes.values())) + 1 + _COUNTS * (1 + self.finalists) + 1


def encoded(update: Update, room: int = 0) -> npt.NDArray[np.uint64]:
    """Returns the vector `[L]` of an update, whose arrays are multiplied by its weight.

    Args:
        update: The update.
        room: The part of the range of each number that is left to noise, in units of 1 / SCALE.

    Raises:
        InvalidUpdate: A number is NaN, or too large for sums.
    """
    numbers = [_fixed(update.arrays[name], name, room) for name in sorted(update.arrays)]
    numbers.append(_fixed(np.array([update.weight]), "weight"))
    measured = [update.measurement, *update.finalists]
    for place, each in enumerate(measured):
        where = "measurement" if place == 0 else f"finalists[{place - 1}]"
        numbers.append(_fixed(np.array([each.dev_loss_sum]), f"{where}.dev_loss_sum"))
        without = each.dev_correct is None and each.dev_examples > 0
        numbers.append(np.array([each.dev_examples, each.dev_correct or 0, without, each.queries]))
    numbers.append(np.ones(1, np.int64))
    return np.concatenate(numbers).astype(np.int64).view(np.uint64)


def _fixed(array: npt.NDArray[np.generic], where: str, room: int = 0) -> npt.NDArray[np.int64]:
    scaled, most = np.rint(array.astype(np.float64).ravel() * SCALE), LARGEST - room
    if not (np.abs(scaled) <= most).all():  # NaN is not, either
        found = float(np.abs(scaled).max()) / SCALE
        fix = f'at most {most / SCALE:.3g}: fewer examples at this client, or privacy.aggregation = "plain"'
        raise InvalidUpdate(f"{found:.3g} is too large for a sum in fixed point", where=where, fix=fix)
    return scaled.astype(np.int64)


def decoded(total: npt.NDArray[np.uint64], layout: Layout) -> tuple[Update, int]:
    """Returns the sum of updates and the number of clients in it."""
    numbers = total.view(np.int64)
    arrays: dict[str, npt.NDArray[np.float64]] = {}
    at = 0
    for name in sorted(layout.shapes):
        size = math.prod(layout.shapes[name])
        arrays[name] = (numbers[at : at + size] / SCALE).reshape(layout.shapes[name])
        at += size
    weight = float(numbers[at] / SCALE)
    rows = numbers[at + 1 : -1].reshape(1 + layout.finalists, _COUNTS)
    measurement, *finalists = (_measurement(row) for row in rows)
    return Update(arrays, weight, measurement, finalists=tuple(finalists)), int(numbers[-1])


def _measurement(row: Sequence[int] | npt.NDArray[np.int64]) -> Measurement:
    loss, examples, correct, without, queries = row  # as `Measurement.__add__` treats the absence of dev_correct
    return Measurement(float(loss / SCALE), int(examples), None if without else int(correct), int(queries))


def summed(vectors: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """Returns the sum of vectors `[L]` in the ring."""
    return np.asarray(np.sum(np.stack(vectors), axis=0, dtype=np.uint64))
