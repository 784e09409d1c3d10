"""The account of a run: how much noise a budget needs, and what the rounds so far have spent.

Each round releases one sum to which every client, or every example, adds a vector of norm C at most, with Gaussian
noise of the standard deviation `noise_multiplier` C. Two data sets are neighbours if one of them has zeros in the place
of what one client, or one example, adds. Such rounds compose, adaptively, to exactly one Gaussian mechanism with the
noise multiplier divided by the square root of their number (Dong, Roth and Su, Gaussian Differential Privacy, 2022,
corollary 3.3), whose epsilon for a delta is known exactly (Balle and Wang, Improving the Gaussian Mechanism for
Differential Privacy, 2018, theorem 8). The package dp-accounting computes it.

The account claims no amplification by sampling: the run's seed, which is no secret, draws cohorts and batches, and the
clients of a cohort know that they are in it.
"""

import math
from functools import lru_cache

from fedbbpt.host.extras import needs_extra, require_package

EXTRA = "privacy"


def require_accountant() -> None:
    """Raises InvalidInput, with the command that installs it, unless the accountant's package is there."""
    require_package("dp_accounting", EXTRA, where="privacy.epsilon", alternative="privacy.epsilon = 0")


@lru_cache
def noise_multiplier(epsilon: float, delta: float, rounds: int) -> float:
    """Returns the smallest noise multiplier with which so many rounds stay within epsilon and delta.

    Raises:
        InvalidInput: dp-accounting is not installed.
    """
    with needs_extra(EXTRA, where="privacy.epsilon"):
        from dp_accounting import get_sigma_gaussian
    found = float(get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds)
    # The package finds it to within a tolerance, which must not be on the wrong side.
    while spent(found, rounds, delta) > epsilon:
        found *= 1 + 1e-9
    return found


@lru_cache
def spent(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Returns the smallest epsilon that holds with `delta` after so many rounds.

    Raises:
        InvalidInput: dp-accounting is not installed.
    """
    if not rounds:
        return 0.0
    with needs_extra(EXTRA, where="privacy.epsilon"):
        from dp_accounting import get_epsilon_gaussian
    return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(rounds), delta))


def most_rounds(noise_multiplier: float, epsilon: float, delta: float) -> int:
    """Returns the largest number of rounds that stay within epsilon and delta."""
    low, high = 0, 1
    while spent(noise_multiplier, high, delta) <= epsilon:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(noise_multiplier, middle, delta) <= epsilon else (low, middle)
    return low
