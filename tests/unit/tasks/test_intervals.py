"""Intervals against figures in the literature, and against their definition, solved in another way."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given
from scipy.optimize import minimize_scalar

from fedbbpt.tasks.intervals import NORMAL_QUANTILE, accuracy_interval, difference_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_wilson_intervals_are_those_in_the_literature(correct: int, n: int, low: float, high: float) -> None:
    assert accuracy_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("only_first", "only_second", "n", "low", "high", "digits"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8: the answer before
        # and after a therapy (Cavo 2012), and an airway before and after a transplantation (Bentur 2009). The figures
        # with four digits are those of R: contingencytables::Tango_asymptotic_score_CI_paired_2x2(cavo_2012).
        (6, 16, 161, -0.1240, -0.0054, 4),
        (1, 7, 21, -0.517, -0.026, 3),
    ],
)
def test_paired_intervals_are_those_in_the_literature(
    only_first: int, only_second: int, n: int, low: float, high: float, digits: int
) -> None:
    found = difference_interval(only_first, only_second, n)
    assert found == pytest.approx((low, high), abs=0.6 * 10**-digits)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 300))
    only_first = draw(st.integers(0, n))
    return only_first, draw(st.integers(0, n - only_first)), n


@given(tables())
def test_it_excludes_no_difference_exactly_if_mcnemar_finds_one(table: tuple[int, int, int]) -> None:
    only_first, only_second, n = table
    low, high = difference_interval(only_first, only_second, n)
    different = only_first + only_second
    statistic = (only_first - only_second) / math.sqrt(different) if different else 0.0
    assert (low > 0 or high < 0) == (abs(statistic) > NORMAL_QUANTILE)


@given(tables())
def test_it_holds_the_measured_difference_and_turns_with_the_order(table: tuple[int, int, int]) -> None:
    only_first, only_second, n = table
    low, high = difference_interval(only_first, only_second, n)
    assert -1 <= low <= (only_first - only_second) / n <= high <= 1
    assert low < high
    assert difference_interval(only_second, only_first, n) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("table", [(40, 20, 160), (3, 0, 25), (0, 12, 20), (150, 141, 500)])
def test_at_a_bound_the_score_test_is_just_rejected(table: tuple[int, int, int]) -> None:
    """The nuisance probability is found here by maximising the likelihood, not by the closed form."""
    only_first, only_second, n = table
    same = n - only_first - only_second
    for bound in difference_interval(only_first, only_second, n):

        def loss(second: float, bound: float = bound) -> float:
            cells = ((only_first, second + bound), (only_second, second), (same, 1 - 2 * second - bound))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

        limits = (max(0.0, -bound), min(1.0, (1 - bound) / 2))
        second = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-12}).x
        statistic = (only_first - only_second - n * bound) / math.sqrt(n * (2 * second + bound * (1 - bound)))
        assert abs(statistic) == pytest.approx(NORMAL_QUANTILE, abs=1e-4)
