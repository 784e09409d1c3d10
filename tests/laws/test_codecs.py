"""Laws of the codecs: the bounds of their errors, and that nothing travels multiplied by a weight."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.codecs import CODECS, SPARSE, codec_of
from fedbbpt.codecs.top_k import encoded_with_feedback
from fedbbpt.codecs.travelling import packed, unit, unpacked
from fedbbpt.types import Arrays

lengths = st.one_of(st.integers(0, 20), st.integers(60, 70))
numbers = hnp.arrays(np.float64, lengths, elements=st.floats(-6e4, 6e4))
seeds = st.integers(0, 2**32 - 1)
Vector = npt.NDArray[np.float64]
STEPS = {"int8": 127, "int4": 7}


def there_and_back(name: str, x: Vector, seed: int) -> Vector:
    codec = CODECS[name]
    return codec.decode(codec.encode({"x": x}, np.random.default_rng(seed)), {"x": x.shape})["x"]


def step(name: str, x: Vector) -> float:
    """Returns the distance of two neighbours of an array's numbers."""
    return float(np.abs(x).max(initial=0.0)) / STEPS[name] * (1 + 1e-6) + 1e-44


@pytest.mark.parametrize(
    ("name", "relative", "smallest"),
    [
        ("float32", 2.0**-24, 2.0**-150),
        ("float16", 2.0**-11, 2.0**-25),
        ("bfloat16", 2.0**-7.99, 2.0**-133.9),
    ],
)
@given(x=numbers, seed=seeds)
def test_narrower_floats_err_by_half_a_unit_in_the_last_place(
    name: str, relative: float, smallest: float, x: Vector, seed: int
) -> None:
    """Kills: truncating instead of rounding, float16 by way of bfloat16."""
    assert (np.abs(there_and_back(name, x, seed) - x) <= np.maximum(np.abs(x) * relative, smallest)).all()


@pytest.mark.parametrize("name", STEPS)
@given(x=numbers, seed=seeds)
def test_integers_err_by_less_than_a_step(name: str, x: Vector, seed: int) -> None:
    """Kills: an int8 that wraps at 128, an int4 that loses the sign or the last number of an odd count."""
    assert (np.abs(there_and_back(name, x, seed) - x) < step(name, x)).all()
    assert (np.abs(there_and_back(name, -x, seed) + x) < step(name, x)).all()


@pytest.mark.parametrize("name", STEPS)
@given(x=hnp.arrays(np.float64, 9, elements=st.floats(-10, 10)))
def test_integers_are_unbiased(name: str, x: Vector) -> None:
    """Kills: rounding to the nearest, whose error has the same sign each time."""
    x[0] = 10.0  # the scale
    draws = 2000
    mean = there_and_back(name, np.tile(x, (draws, 1)), seed=1).mean(axis=0)
    # Each draw is one of two neighbours a step apart, so its standard deviation is half a step at most.
    assert (np.abs(mean - x) <= 5 * (10 / STEPS[name]) / 2 / np.sqrt(draws)).all()


@pytest.mark.parametrize("name", STEPS)
@given(x=numbers, seed=seeds)
def test_a_rotation_bounds_the_length_of_the_error(name: str, x: Vector, seed: int) -> None:
    """The error of m rotated numbers is less than a step each, and the rotation back preserves its length.

    Kills: another rotation back, a padding that is rotated into the numbers.
    """
    length, m = float(np.linalg.norm(x)), 1 << max(len(x) - 1, 0).bit_length()
    # No rotated number is longer than the whole vector.
    bound = math.sqrt(m) * (length / STEPS[name] * (1 + 1e-6) + 1e-44)
    assert np.linalg.norm(there_and_back(f"rotate+{name}", x, seed) - x) <= bound


def test_a_rotation_spreads_one_large_number() -> None:
    """With one large number, the scale is too coarse for all the others unless they are rotated."""
    x = np.random.default_rng(0).normal(size=512)
    x[7] = 300.0
    plain, rotated = (np.linalg.norm(there_and_back(name, x, 1) - x) for name in ("int8", "rotate+int8"))
    assert rotated < plain / 4


@pytest.mark.parametrize(("name", "unit_error"), [("topk+float16", 2.0**-11), ("topk+int8", 1.001 / 127)])
@given(x=numbers, kept=st.floats(0.01, 1), seed=seeds)
def test_the_largest_numbers_travel_and_the_others_are_lost(
    name: str, unit_error: float, x: Vector, kept: float, seed: int
) -> None:
    """Kills: the smallest numbers, the largest without their signs, numbers in the order of their size."""
    codec = codec_of(name, kept=kept, point="x")
    back = codec.decode(codec.encode({"x": x}, np.random.default_rng(seed)), {"x": x.shape})["x"]
    largest = np.sort(np.abs(x))[::-1][: math.ceil(kept * len(x))]
    error = float(np.abs(x).max(initial=0.0)) * unit_error + 2.0**-25
    lost = np.sort(np.abs(x))[::-1][len(largest) :]
    np.testing.assert_allclose(np.sort(np.abs(back))[::-1][: len(largest)], largest, rtol=0, atol=error)
    assert np.linalg.norm(back - x) <= np.linalg.norm(lost) + math.sqrt(len(x)) * error
    assert (np.abs(back - x)[np.abs(x) > largest.min(initial=np.inf)] <= error).all()


@pytest.mark.parametrize("name", SPARSE)
@given(kept=st.floats(0.02, 1), seed=seeds)
def test_what_a_sparse_codec_loses_travels_later(name: str, kept: float, seed: int) -> None:
    """All that arrived and what is still lost add up to all that was sent, whatever the weights of the rounds.

    Kills: a lost part that is added twice or never, or with another round's weight; losses, which are no point, summed.
    """
    codec, draw = codec_of(name, kept=kept, point="x"), np.random.default_rng(seed)
    sent, arrived = np.zeros(60), np.zeros(60)
    lost: Arrays = {}
    for _ in range(10):
        weight, x, loss = float(draw.uniform(1, 100)), draw.normal(size=60), draw.normal(size=9)
        scale, shapes = weight / unit(weight), {"x": (60,), "loss": (9,)}
        encoded, lost = encoded_with_feedback(codec, {"x": scale * x, "loss": loss}, lost, scale, draw)
        decoded = codec.decode(encoded, shapes)
        sent, arrived = sent + x, arrived + decoded["x"] / scale
        np.testing.assert_allclose(sent, arrived + lost["x"], atol=1e-12)
        assert lost.keys() == {"x"} and np.abs(decoded["loss"] - loss).max() < step("int8", loss) + 1e-3


def test_codecs_that_lose_no_numbers_keep_nothing() -> None:
    arrays: Arrays = {"x": np.arange(20.0)}
    encoded, lost = encoded_with_feedback(CODECS["int8"], arrays, {}, 1.0, np.random.default_rng(0))
    assert lost == {}
    assert encoded["x"].tobytes() == CODECS["int8"].encode(arrays, np.random.default_rng(0))["x"].tobytes()


@given(x=numbers, weight=st.floats(1e-9, 1e9), here=st.floats(-1, 1))
def test_arrays_travel_without_their_weight_and_points_as_differences(x: Vector, weight: float, here: float) -> None:
    """Kills: multiplying before encoding, which is too large for float16 with a weight of thousands of examples."""
    broadcast: Arrays = {"point": np.full(len(x), here, np.float32), "other": np.ones(len(x) + 1, np.float32)}
    x = x / 3
    arrays: Arrays = {"point": weight * x, "loss": weight * x, "other": weight * x, "places": np.arange(3, dtype="u1")}
    travelling = packed(arrays, weight, broadcast)
    for name, base in (("point", float(np.float32(here))), ("loss", 0.0), ("other", 0.0)):
        np.testing.assert_allclose(travelling[name] / (weight / unit(weight)), x - base, rtol=1e-9, atol=1e-9)
    codec, shapes = CODECS["float16"], {name: array.shape for name, array in arrays.items()}
    back = unpacked(codec.decode(codec.encode(travelling, np.random.default_rng(0)), shapes), weight, broadcast)
    for name in ("point", "loss", "other"):
        np.testing.assert_allclose(back[name] / weight, x, rtol=2.0**-10, atol=2.0**-9)
    assert back["places"].tobytes() == arrays["places"].tobytes()


@given(x=numbers, weight=st.floats(1, 1e9))
def test_the_scale_of_travelling_arrays_costs_no_digit(x: Vector, weight: float) -> None:
    """Kills: dividing by the weight, which rounds."""
    assert 0.5 < unit(weight) / weight <= 1
    x = np.where(np.abs(x) < 1e-200, 0.0, x)
    np.testing.assert_array_equal(unpacked(packed({"x": x}, weight, {}), weight, {})["x"], x)
