"""Noise in shares: each client adds a part of a sum's noise to its answer, so that nobody sees an update without any.

A client bounds what it adds, writes it as numbers of fixed point, adds a discrete Gaussian to each number, and only
then masks it. The deviation of a share is such that the smallest admitted number of clients has the noise of the
account together. Larger sums have more.

The bound holds for the numbers of fixed point. At the level of clients the mean update is clipped to the clip norm less
the most by which rounding can lengthen it. At the level of examples a client rounds a sum over its examples, in both of
two neighbours, and adds it up in 64-bit arithmetic; SLACK covers both errors for up to MOST_EXAMPLES examples.
"""

import math
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidJob, InvalidUpdate
from fedbbpt.privacy import discrete_gaussian
from fedbbpt.privacy.release import clipped
from fedbbpt.secure import fixed_point
from fedbbpt.secure.fixed_point import LEAST_DEVIATION, MOST_DEVIATION
from fedbbpt.types import Arrays, NoiseShare, PrivacyBudget, Update

SLACK = 2.0**-10
"""By how much the noise exceeds that of the clip norm, relative to it."""
MOST_EXAMPLES = 2**20
"""The most examples of one client at the level of examples.

The rounding error of a 64-bit sum over n of them is below n^2 2^-53 clip norms, so those of two sums are below 2^-12.
"""


def share(budget: PrivacyBudget, noise_multiplier: float, clients: int, numbers: int) -> NoiseShare:
    """Returns what each client of a run adds.

    Args:
        budget: The budget of the run.
        noise_multiplier: That of the account.
        clients: The smallest number of clients in a sum.
        numbers: The numbers in the arrays of an update, d.

    Raises:
        InvalidJob: The clip norm is too small or too large for numbers of fixed point.
    """
    check_rounding(budget.clip_norm, numbers, InvalidJob)
    whole = noise_multiplier * budget.clip_norm * fixed_point.SCALE * (1 + SLACK)
    deviation = math.ceil(whole / math.sqrt(clients))
    if not LEAST_DEVIATION <= deviation <= MOST_DEVIATION:
        what = f"a clip norm of {budget.clip_norm:g}, with noise of {noise_multiplier:.4g} times as much"
        low, high = (budget.clip_norm * limit / deviation for limit in (LEAST_DEVIATION, MOST_DEVIATION))
        least = max(low, least_clip_norm(numbers))
        fix = f"from {least:.2g} to {high:.2g}: noise in shares is made of numbers of fixed point"
        raise InvalidJob(what, where="privacy.clip_norm", fix=fix)
    return NoiseShare(deviation, clients, budget.clip_norm if budget.level == "client" else 0.0)


def least_clip_norm(numbers: int) -> float:
    """Returns the smallest clip norm for vectors of so many numbers, to which rounding adds no more than is allowed."""
    return math.sqrt(numbers) / (SLACK / 2 * fixed_point.SCALE)


def check_rounding(clip_norm: float, numbers: int, error: type[InvalidJob | InvalidUpdate]) -> None:
    """Raises `error` if rounding to fixed point could add more to a vector than SLACK allows for."""
    least = least_clip_norm(numbers)
    if clip_norm < least:
        what = f"a clip norm of {clip_norm:g} is too small for {numbers} numbers of fixed point"
        raise error(what, where="privacy.clip_norm", fix=f"at least {least:.2g}")


def bounded(update: Update, essential: Callable[[Arrays], Arrays], noise: NoiseShare, clip_norm: float) -> Update:
    """Returns what a client adds to a sum, before it is rounded.

    Args:
        update: The client's update, whose arrays are multiplied by its weight.
        essential: Returns the part of its arrays that the method's steps use.
        noise: The noise of the run.
        clip_norm: What the examples were clipped to; 0 at the level of clients.

    Raises:
        InvalidUpdate: The client's numbers are too many for its clip norm, or its examples.
    """
    arrays = essential(update.arrays)
    numbers = sum(array.size for array in arrays.values())
    check_rounding(noise.clip_norm or clip_norm, numbers, InvalidUpdate)
    if noise.clip_norm:
        mean = {name: array / update.weight for name, array in arrays.items()}
        longest = noise.clip_norm - math.sqrt(numbers) / 2 / fixed_point.SCALE
        return replace(update, arrays=clipped(mean, longest), weight=1.0)
    if update.weight > MOST_EXAMPLES:
        what = f"a sum over {update.weight:.0f} examples is not exact enough for noise in shares"
        raise InvalidUpdate(what, where="examples", fix=f"at most {MOST_EXAMPLES} examples at one client")
    return replace(update, arrays=arrays)


def noisy(
    vector: npt.NDArray[np.uint64],
    numbers: int,
    noise: NoiseShare,
    read: discrete_gaussian.Read = os.urandom,
) -> npt.NDArray[np.uint64]:
    """Returns a vector of fixed point with noise on each of its first numbers, which are those of the arrays.

    Args:
        vector: The vector `[L]`, in which `fixed_point.encoded` left NOISE_ROOM.
        numbers: The numbers in the arrays of the update, d.
        noise: The noise of the run.
        read: The stream of random bytes.
    """
    found = vector.copy()
    found[:numbers] += discrete_gaussian.samples(numbers, noise.deviation, read).view(np.uint64)
    return found
