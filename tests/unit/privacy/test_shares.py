"""Noise in shares: what a client adds, what any sum of clients has, and what is refused.

Bounds are such that a right implementation fails with a probability below 1e-8.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.client.shares import Shares
from fedbbpt.errors import InvalidJob, InvalidUpdate, NotPrivate
from fedbbpt.privacy.release import norm
from fedbbpt.privacy.shares import MOST_EXAMPLES, SLACK, bounded, noisy, share
from fedbbpt.secure.fixed_point import LARGEST, MOST_CLIENTS, NOISE_ROOM, SCALE, Layout, decoded, encoded, summed
from fedbbpt.types import Arrays, Measurement, NoiseShare, Phase, PrivacyBudget, PrivacyLevel, TaskId, Update

SIGMAS = 6.0
NUMBERS = 20_000


def budget(level: PrivacyLevel = "client", clip_norm: float = 1.0) -> PrivacyBudget:
    return PrivacyBudget(level, 2.0, 1e-5, clip_norm)


def whole(arrays: Arrays) -> Arrays:
    return arrays


def answer(client: int, noise: NoiseShare, numbers: int = NUMBERS) -> Update:
    """Returns a client's bounded update, all of whose numbers are the same."""
    value = (client + 1) / 1000 / math.sqrt(numbers)
    return bounded(Update({"a": np.full(numbers, 3 * value)}, 3.0, Measurement(1.0, 2, 1, 4)), whole, noise, 0.0)


@pytest.mark.parametrize("survivors", [(0, 1, 2), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_the_sum_of_any_admitted_survivors_has_at_least_the_noise_of_the_account(survivors: tuple[int, ...]) -> None:
    """Kills: a share for the whole cohort instead of the smallest sum, and noise on one client's answer only."""
    multiplier, clip_norm, least = 4.0, 0.5, 3
    noise = share(budget(clip_norm=clip_norm), multiplier, least, NUMBERS)
    answers = [answer(client, noise) for client in survivors]
    vectors = [noisy(encoded(each, NOISE_ROOM), NUMBERS, noise) for each in answers]
    total, clients = decoded(summed(vectors), Layout({"a": (NUMBERS,)}, 0))
    assert clients == len(survivors) == total.weight
    assert total.measurement == sum((each.measurement for each in answers), Measurement())
    found = total.arrays["a"] - sum(each.arrays["a"] for each in answers)
    wanted = (multiplier * clip_norm) ** 2 * len(survivors) / least
    assert np.mean(found**2) / wanted == pytest.approx((1 + SLACK) ** 2, abs=SIGMAS * math.sqrt(2 / NUMBERS))
    assert (1 + SLACK) * multiplier * clip_norm * SCALE <= noise.deviation * math.sqrt(least)
    assert abs(found.mean()) < SIGMAS * math.sqrt(wanted / NUMBERS) * 1.01


@given(st.floats(-1e12, 1e12), st.integers(1, 10**6), st.floats(1e-2, 1e4), st.integers(1, 40))
def test_numbers_of_fixed_point_are_within_the_clip_norm(
    value: float, weight: int, clip_norm: float, numbers: int
) -> None:
    """Exactly, in whole numbers. Kills: clipping without regard to rounding."""
    noise = NoiseShare(1000, 3, clip_norm)
    update = Update({"a": np.linspace(-value, value, numbers), "b": np.array([value])}, float(weight))
    vector = encoded(bounded(update, whole, noise, 0.0), NOISE_ROOM)
    integers = [int(each) for each in vector[: numbers + 1].view(np.int64)]
    assert sum(each**2 for each in integers) <= (clip_norm * SCALE) ** 2 * (1 + 1e-12)
    assert int(vector[numbers + 1]) == SCALE, "each client counts once"


def test_only_the_part_that_steps_use_leaves_a_client() -> None:
    update = Update({"loss": np.array([5.0]), "a": np.full(3, 0.1)}, 1.0)
    found = bounded(update, lambda arrays: {**arrays, "loss": 0 * arrays["loss"]}, NoiseShare(16, 3, 2.0), 0.0)
    assert not found.arrays["loss"].any() and found.arrays["a"].all()


def test_a_sum_over_clipped_examples_keeps_its_weight() -> None:
    update = Update({"a": np.array([3.0, 4.0])}, 7.0)
    assert bounded(update, whole, NoiseShare(16, 3, 0.0), 1.0) == update
    with pytest.raises(InvalidUpdate, match="is not exact enough"):
        bounded(Update({"a": np.zeros(2)}, MOST_EXAMPLES + 1.0), whole, NoiseShare(16, 3, 0.0), 1.0)


def test_noise_is_new_each_time_and_on_the_arrays_alone() -> None:
    noise = share(budget(), 1.0, 3, 4)
    vector = encoded(answer(0, noise, 4), NOISE_ROOM)
    one, other = (noisy(vector, 4, noise) for _ in range(2))
    assert (one[:4] != other[:4]).all()
    assert np.array_equal(one[4:], vector[4:]) and np.array_equal(other[4:], vector[4:])


@pytest.mark.parametrize(
    ("clip_norm", "multiplier", "numbers", "what"),
    [
        (1e-4, 1.0, 4, "too small for 4 numbers"),
        (1.0, 1.0, 10**8, "too small for 100000000 numbers"),
        (1e6, 100.0, 4, "fix: from"),
        (0.01, 1e-5, 4, "fix: from"),
    ],
)
def test_a_clip_norm_that_does_not_suit_the_ring_is_refused(
    clip_norm: float, multiplier: float, numbers: int, what: str
) -> None:
    with pytest.raises(InvalidJob) as error:
        share(budget(clip_norm=clip_norm), multiplier, 3, numbers)
    assert what in f"{error.value} fix: {error.value.fix}"


def test_a_client_leaves_room_for_noise_in_the_ring() -> None:
    """Values and noise of all clients together stay below 2^63. Kills: noise on top of the whole range."""
    most = (LARGEST - NOISE_ROOM) / SCALE
    encoded(Update({"a": np.array([most])}, 1.0), NOISE_ROOM)
    with pytest.raises(InvalidUpdate, match="too large for a sum in fixed point"):
        encoded(Update({"a": np.array([most * 1.001])}, 1.0), NOISE_ROOM)
    assert MOST_CLIENTS * LARGEST < 2**63


# What a client answers


def task(round: int, run: str = "run", phase: Phase = Phase.UPDATE) -> TaskId:
    return TaskId(run, round, "anna", phase)


def test_a_client_answers_no_more_rounds_than_were_announced_and_none_twice() -> None:
    """Kills: a coordinator that averages the noise away by asking again, for the same round or for more rounds."""
    shares = Shares(NoiseShare(1000, 3, 1.0), 0.0, rounds=5, essential=whole)
    for allowed, last in ((task(0), None), (task(4), task(3)), (task(0, "other"), task(4)), (task(2), task(0))):
        shares.check(allowed, last)
    shares.check(task(5, phase=Phase.EVALUATE), task(4))
    for refused, last in ((task(5), task(4)), (task(3), task(3)), (task(2), task(3)), (task(5), None)):
        with pytest.raises(NotPrivate, match="the coordinator asks for round"):
            shares.check(refused, last)


def test_norm_of_a_bounded_update_is_the_clip_norm_less_rounding() -> None:
    found = bounded(Update({"a": np.full(4, 1e6)}, 2.0), whole, NoiseShare(1000, 3, 2.0), 0.0)
    assert norm(found.arrays) == pytest.approx(2.0 - 1 / SCALE, rel=1e-9)
