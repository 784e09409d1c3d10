"""Shamir's secret sharing, and numbers of fixed point. Each docstring names the mutant that its test kills."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import InvalidUpdate
from fedbbpt.secure import shamir
from fedbbpt.secure.fixed_point import LARGEST, MOST_CLIENTS, SCALE, Layout, decoded, encoded, summed
from fedbbpt.types import Measurement, Update, merge


@given(st.integers(0, shamir.PRIME - 1), st.integers(1, 6), st.integers(0, 3))
def test_any_threshold_of_shares_gives_the_secret_and_one_less_another_number(
    secret: int, threshold: int, more: int
) -> None:
    """Mutant: a polynomial of degree t - 2."""
    places = list(range(1, threshold + more + 1))
    shares = dict(zip(places, shamir.split(secret, places, threshold), strict=True))
    for chosen in itertools.combinations(places, threshold):
        assert shamir.combined({place: shares[place] for place in chosen}) == secret
    if threshold > 1:
        assert shamir.combined({place: shares[place] for place in places[: threshold - 1]}) != secret


def test_shares_of_one_secret_differ_each_time() -> None:
    """Mutant: coefficients that are not random, so that fewer shares than the threshold tell the secret."""
    assert len({tuple(shamir.split(5, [1, 2], 3)) for _ in range(20)}) == 20


def example(scale: float, seed: int) -> Update:
    rng = np.random.default_rng(seed)
    arrays = {"losses": scale * rng.random(6), "gradient": scale * rng.normal(size=(2, 3))}
    measured = Measurement(scale * 3.7, 10, 4, 120)
    return Update(arrays, 12.0 + seed, measured, finalists=(Measurement(1.5, 10, 2), Measurement(2.5, 10, 3)))


LAYOUT = Layout({"losses": (6,), "gradient": (2, 3)}, 2)


@given(st.integers(2, 40), st.floats(1e-6, 1e5))
def test_a_sum_equals_the_plain_one_to_the_stated_error(clients: int, scale: float) -> None:
    """Mutant: 16 fractional bits; or numbers that are cut off and not rounded."""
    updates = [example(scale, seed) for seed in range(clients)]
    vectors = [encoded(update) for update in updates]
    assert {len(vector) for vector in vectors} == {LAYOUT.length}
    found, number = decoded(summed(vectors), LAYOUT)
    plain = merge(updates)
    error = clients * 2.0**-25 + 1e-12 * scale * clients
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, rtol=0, atol=error)
    assert (number, found.weight) == (clients, plain.weight)
    for one, other in zip([found.measurement, *found.finalists], [plain.measurement, *plain.finalists], strict=True):
        assert one.dev_loss_sum == pytest.approx(other.dev_loss_sum, abs=error)
        assert (one.dev_examples, one.dev_correct, one.queries) == (
            other.dev_examples,
            other.dev_correct,
            other.queries,
        )


def test_sums_do_not_depend_on_their_order() -> None:
    """Mutant: sums in floating point."""
    vectors = [encoded(example(1e3, seed)) for seed in range(20)]
    np.testing.assert_array_equal(summed(vectors), summed(vectors[::-1]))


@pytest.mark.parametrize("value", [2.0**28, -(2.0**28), np.nan, np.inf])
def test_a_number_out_of_range_is_refused_before_it_is_masked(value: float) -> None:
    """Mutant: no check, or one that NaN passes."""
    with pytest.raises(InvalidUpdate, match="losses"):
        encoded(Update({"losses": np.array([1.0, value])}, 1.0))
    with pytest.raises(InvalidUpdate, match=r"measurement\.dev_loss_sum"):
        encoded(Update({}, 1.0, Measurement(value, 1, 0)))


def test_no_sum_of_the_most_clients_overflows() -> None:
    """Mutant: one client more, or twice the range."""
    largest = np.full(1, LARGEST, np.int64).view(np.uint64)
    total = largest * np.uint64(MOST_CLIENTS)
    assert int(total.view(np.int64)[0]) == LARGEST * MOST_CLIENTS < 2**63
    assert encoded(Update({"x": np.array([LARGEST / SCALE])}, 1.0)).view(np.int64)[0] == LARGEST


def test_a_missing_count_of_correct_answers_is_missing_in_the_sum() -> None:
    """Mutant: an absent dev_correct counts as 0."""
    without, with_ = Measurement(1.0, 5, None, 3), Measurement(1.0, 5, 2, 3)
    found, _ = decoded(summed([encoded(Update({}, 1.0, each)) for each in (without, with_)]), Layout({}, 0))
    assert found.measurement == without + with_
    empty = Measurement(0.0, 0, None, 3)
    found, _ = decoded(summed([encoded(Update({}, 1.0, each)) for each in (empty, with_)]), Layout({}, 0))
    assert found.measurement == empty + with_
