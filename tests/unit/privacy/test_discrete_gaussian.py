"""The sampler of discrete Gaussian noise: its distribution, and where its randomness comes from.

Bounds are such that a right sampler fails with a probability below 1e-8.
"""

import hashlib
import math
import os
from collections.abc import Callable

import numpy as np
import pytest

from fedbbpt.privacy import discrete_gaussian
from fedbbpt.privacy.accountant import FAR
from fedbbpt.privacy.discrete_gaussian import divergence, samples
from fedbbpt.secure.fixed_point import LEAST_DEVIATION, MOST_CLIENTS

COUNT, SIGMAS = 40_000, 6.0


def stream(seed: bytes) -> Callable[[int], bytes]:
    """Returns a reader of the SHAKE-256 of a seed, in blocks of any length."""
    read = 0

    def take(count: int) -> bytes:
        nonlocal read
        read += count
        return hashlib.shake_256(seed).digest(read)[-count:]

    return take


@pytest.mark.parametrize("deviation", [1, 2, 7])
def test_probabilities_are_those_of_the_definition(deviation: int) -> None:
    """Kills: Laplace noise, a 0 with two signs, a wrong square, and a scale that is off by one."""
    drawn = samples(COUNT, deviation)
    reach = np.arange(-60 * deviation, 60 * deviation + 1)
    weights = np.exp(-(reach**2) / (2 * deviation**2))
    for value, probability in zip(reach, weights / weights.sum(), strict=True):
        if COUNT * probability > 40:
            slack = SIGMAS * math.sqrt(COUNT * probability)
            assert abs((drawn == value).sum() - COUNT * probability) < slack, value


@pytest.mark.parametrize("deviation", [16, 10**6, 2**45])
def test_mean_and_variance_are_those_of_the_gaussian(deviation: int) -> None:
    drawn = samples(COUNT, deviation).astype(np.float64) / deviation
    assert abs(drawn.mean()) < SIGMAS / math.sqrt(COUNT)
    assert abs((drawn**2).mean() - 1) < SIGMAS * math.sqrt(2 / COUNT)
    assert abs((drawn**4).mean() - 3) < SIGMAS * math.sqrt(96 / COUNT)


def test_low_digits_of_large_samples_are_uniform() -> None:
    """Kills: a rounded Gaussian of 64-bit arithmetic, whose large values end with zeros."""
    ones = (samples(COUNT, 2**45) & 0xFF).astype(np.float64)
    assert abs(ones.mean() - 127.5) < SIGMAS * 74 / math.sqrt(COUNT)


def test_a_stream_decides_the_samples_and_two_streams_differ() -> None:
    one, same, other = (samples(50, 1000, stream(seed)) for seed in (b"a", b"a", b"b"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_randomness_is_that_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a generator with a seed, and bytes that are kept for the next call or for a forked process."""
    assert discrete_gaussian.samples.__defaults__ == (os.urandom,)
    np.random.seed(0)
    before = samples(50, 1000)
    np.random.seed(0)
    assert not np.array_equal(before, samples(50, 1000))


def test_divergence_of_a_sum_is_the_bound_of_kairouz_liu_and_steinke() -> None:
    assert divergence(2, 0.5) == pytest.approx(10 * math.exp(-2 * math.pi**2 * 0.25 / 2))
    assert divergence(1, 0.5) == 0.0
    assert divergence(5, 1.0) == pytest.approx(10 * sum(math.exp(-2 * math.pi**2 * k / (k + 1)) for k in range(1, 5)))


def test_sums_of_the_smallest_shares_are_discrete_gaussians_beyond_all_digits() -> None:
    """The account leaves out the exact tau: FAR exceeds tau sqrt(d) for all shares that are admitted."""
    assert divergence(MOST_CLIENTS, LEAST_DEVIATION) * math.sqrt(1e18) < FAR
