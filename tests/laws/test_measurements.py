"""Laws of dev measurements: they add, for every output of each client's PTM."""

from functools import reduce
from operator import add
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.types import Measurement


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    """A client's measurement, with or without dev examples and with a known or an unknown number of correct answers."""
    examples = draw(st.integers(0, 50))
    correct = draw(st.none() | st.integers(0, examples))
    return Measurement(float(draw(st.integers(0, 100))), examples, correct, draw(st.integers(0, 1000)))


@given(st.lists(measurements(), max_size=6), st.randoms())
def test_measurements_add_in_any_order(parts: list[Measurement], random: Random) -> None:
    """Kills: a sum that depends on its first part."""
    shuffled = random.sample(parts, len(parts))
    assert sum(parts, Measurement()) == sum(shuffled, Measurement())


@given(st.lists(measurements(), min_size=1, max_size=6))
def test_the_empty_measurement_is_the_zero(parts: list[Measurement]) -> None:
    total = sum(parts, Measurement())
    assert total + Measurement() == Measurement() + total == total
    assert (total.dev_examples, total.queries) == (sum(p.dev_examples for p in parts), sum(p.queries for p in parts))


@given(st.lists(measurements(), min_size=1, max_size=6))
def test_the_sum_of_correct_answers_is_known_if_each_client_with_examples_knows_its_own(
    parts: list[Measurement],
) -> None:
    """Kills: counting an unknown number as 0; losing the number because a client without examples does not know it."""
    known = [part.dev_correct for part in parts if part.dev_examples]
    total = reduce(add, parts, Measurement())
    assert total.dev_correct == (None if None in known else sum(n for n in known if n is not None))
