"""The account of a run: how much noise a budget needs, and what the rounds so far have spent.

Each round releases one sum to which every client, or every example, adds a vector of norm C at most, with Gaussian
noise of the standard deviation `noise_multiplier` C. Two data sets are neighbours if one of them has zeros in the place
of what one client, or one example, adds. Such rounds compose, adaptively, to exactly one Gaussian mechanism with the
noise multiplier divided by the square root of their number (Dong, Roth and Su, Gaussian Differential Privacy, 2022,
corollary 3.3), whose epsilon for a delta is known exactly (Balle and Wang, Improving the Gaussian Mechanism for
Differential Privacy, 2018, theorem 8). The package dp-accounting computes it.

With noise in shares, the noise of a sum is the sum of discrete Gaussians, one of each client. What is proven of it is a
bound on its Renyi divergences (Kairouz, Liu and Steinke, The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation, 2021, proposition 14): a round is (1/2) (1 / noise multiplier + tau sqrt(d))^2
concentrated differentially private. Such bounds add up over the rounds, and dp-accounting converts their sum to an
epsilon, which is some percent more than that of the Gaussian mechanism.

The account claims no amplification by sampling: the run's seed, which is no secret, draws cohorts and batches, and the
clients of a cohort know that they are in it.
"""

import math
from functools import lru_cache

from fedbbpt.host.extras import needs_extra, require_package

EXTRA = "privacy"
FAR = 1e-12
"""More than tau sqrt(d) for shares of a deviation of 16 or more, fewer than 2^63 clients, and d below 10^18 numbers."""
_ORDERS = tuple(1 + 10 ** (step / 64) for step in range(-128, 449))
"""The orders of Renyi divergence among which the conversion chooses: 1.01 to 10 million."""


def require_accountant() -> None:
    """Raises InvalidInput, with the command that installs it, unless the accountant's package is there."""
    require_package("dp_accounting", EXTRA, where="privacy.epsilon", alternative="privacy.epsilon = 0")


@lru_cache
def noise_multiplier(epsilon: float, delta: float, rounds: int, *, shares: bool = False) -> float:
    """Returns the smallest noise multiplier with which so many rounds stay within epsilon and delta.

    Args:
        epsilon: The budget.
        delta: The probability with which the guarantee may fail.
        rounds: The number of rounds.
        shares: Whether each client adds a share of the noise.

    Raises:
        InvalidInput: dp-accounting is not installed.
    """
    with needs_extra(EXTRA, where="privacy.epsilon"):
        from dp_accounting import get_sigma_gaussian
    found = float(get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds)
    if shares:
        # The bound never allows less noise than the Gaussian mechanism needs.
        low, found = found, 2 * found
        while spent(found, rounds, delta, shares=True) > epsilon:
            low, found = found, 2 * found
        while found > low * (1 + 1e-9):
            middle = (low + found) / 2
            enough = spent(middle, rounds, delta, shares=True) <= epsilon
            low, found = (low, middle) if enough else (middle, found)
        return found
    # The package finds it to within a tolerance, which must not be on the wrong side.
    while spent(found, rounds, delta) > epsilon:
        found *= 1 + 1e-9
    return found


@lru_cache(maxsize=1024)
def spent(noise_multiplier: float, rounds: int, delta: float, *, shares: bool = False) -> float:
    """Returns the smallest epsilon that is proven to hold with `delta` after so many rounds.

    Args:
        noise_multiplier: The standard deviation of the noise on each number of a sum, divided by the clip norm.
        rounds: The number of rounds.
        delta: The probability with which the guarantee may fail.
        shares: Whether each client adds a share of the noise.

    Raises:
        InvalidInput: dp-accounting is not installed.
    """
    if not rounds:
        return 0.0
    with needs_extra(EXTRA, where="privacy.epsilon"):
        from dp_accounting import ZCDpEvent, get_epsilon_gaussian
        from dp_accounting.rdp import RdpAccountant
    if shares:
        rho = rounds * (1 / noise_multiplier + FAR) ** 2 / 2
        return float(RdpAccountant(_ORDERS).compose(ZCDpEvent(rho)).get_epsilon(delta))
    return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(rounds), delta))


def most_rounds(noise_multiplier: float, epsilon: float, delta: float, *, shares: bool = False) -> int:
    """Returns the largest number of rounds that stay within epsilon and delta."""

    def within(rounds: int) -> bool:
        return spent(noise_multiplier, rounds, delta, shares=shares) <= epsilon

    low, high = 0, 1
    while within(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low
