"""Clipping and noise: norms never exceed the clip norm, and the noise has the size that the account says."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedbbpt.errors import InvalidUpdate
from fedbbpt.privacy.noise import normals
from fedbbpt.privacy.release import check_clipped, clipped, noised, norm, sensitivity
from fedbbpt.types import Update

DRAWS = 400_000
SIGMAS = 6.5
"""A standard normal number is larger in absolute value with a probability of 8e-11."""

numbers = st.floats(-1e12, 1e12, width=64)


@given(arrays(np.float64, (3, 2), elements=numbers), arrays(np.float64, (4,), elements=numbers), st.floats(1e-3, 1e3))
def test_clipped_norm_never_exceeds_the_clip_norm(a: np.ndarray, b: np.ndarray, clip_norm: float) -> None:
    """Kills: arrays that are clipped one by one, and a factor that is not below 1 at the border."""
    found = clipped({"a": a, "b": b}, clip_norm)
    assert norm(found) <= clip_norm
    assert norm(found) >= min(norm({"a": a, "b": b}), clip_norm) * (1 - 1e-9), "no more than needed"
    if norm({"a": a, "b": b}) <= clip_norm:
        np.testing.assert_array_equal(found["a"], a)


def test_noise_is_standard_normal() -> None:
    """Moments of a fixed number of draws; a right generator fails one of the bounds with a probability below 1e-9."""
    drawn = normals(DRAWS)
    assert abs(drawn.mean()) < SIGMAS / math.sqrt(DRAWS)
    assert abs((drawn**2).mean() - 1) < SIGMAS * math.sqrt(2 / DRAWS)
    assert abs((drawn**3).mean()) < SIGMAS * math.sqrt(15 / DRAWS)
    assert abs((drawn**4).mean() - 3) < SIGMAS * math.sqrt(96 / DRAWS)
    beyond = math.erfc(2 / math.sqrt(2))
    assert abs((np.abs(drawn) > 2).mean() - beyond) < SIGMAS * math.sqrt(beyond / DRAWS)
    assert abs((drawn[::2] * drawn[1::2]).mean()) < SIGMAS / math.sqrt(DRAWS / 2), "neighbours are independent"
    half = DRAWS // 2
    assert abs((drawn[:half] * drawn[half:]).mean()) < SIGMAS / math.sqrt(half), "halves are independent"


@pytest.mark.parametrize("deviation", [0.5, 30.0])
def test_noise_has_the_deviation_that_was_asked_for(deviation: float) -> None:
    """Kills: noise that is scaled by the number of arrays, and one draw for all arrays."""
    sums = {"a": np.full((200, 1000), 7.0), "b": np.full(200_000, -3.0)}
    noise = {name: array - sums[name] for name, array in noised(sums, deviation).items()}
    for array in noise.values():
        assert abs(array.mean()) < SIGMAS * deviation / math.sqrt(array.size)
        assert abs((array**2).mean() / deviation**2 - 1) < SIGMAS * math.sqrt(2 / array.size)
    product = (noise["a"].ravel() * noise["b"]).mean()
    assert abs(product) < SIGMAS * deviation**2 / math.sqrt(200_000)


def test_noise_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: noise that is drawn by the run's seed, or by a generator whose state an attacker may learn."""
    asked: list[int] = []

    def generator(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    np.random.seed(1)
    first = normals(1000)
    np.random.seed(1)
    assert not np.array_equal(first, normals(1000))
    monkeypatch.setattr(os, "urandom", generator)
    assert len(set(normals(10))) == 1, "every bit of the noise comes from there"
    assert asked == [16 * 20]


def test_noise_is_finite_at_both_ends_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr(os, "urandom", lambda count, byte=byte: byte * count)
        assert np.isfinite(normals(5)).all()


def test_sum_that_cannot_be_of_clipped_examples_is_refused() -> None:
    check_clipped(Update({"a": np.array([3.0, 4.0])}, weight=5.0), clip_norm=1.0)
    with pytest.raises(InvalidUpdate, match="a sum of norm 10 over 5 examples") as error:
        check_clipped(Update({"a": np.array([6.0, 8.0])}, weight=5.0), clip_norm=1.0)
    assert "at most 5" in str(error.value.fix)


@given(arrays(np.float64, 30, elements=st.floats(-1, 1, width=64)), st.integers(1, 10_000))
def test_sensitivity_covers_rounding_to_float32(direction: np.ndarray, examples: int) -> None:
    """Kills: noise for a sum whose rounding can differ by more than the clip norm."""
    length = np.linalg.norm(direction)
    one = direction / length if length else direction
    others = one * (examples - 1)
    difference = (others + one).astype(np.float32).astype(np.float64) - others.astype(np.float32)
    assert np.linalg.norm(difference) <= sensitivity(1.0, examples) * (1 + 1e-12)
