"""Laws of the codecs: the bounds of their errors."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.codecs import CODECS

numbers = hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(-6e4, 6e4))
seeds = st.integers(0, 2**32 - 1)
Vector = npt.NDArray[np.float64]


def there_and_back(name: str, x: Vector, seed: int) -> Vector:
    codec = CODECS[name]
    return codec.decode(codec.encode({"x": x}, np.random.default_rng(seed)))["x"]


@given(x=numbers, seed=seeds)
def test_float32_errs_by_half_a_unit_in_the_last_place(x: Vector, seed: int) -> None:
    """Kills: truncating instead of rounding."""
    bound = np.maximum(np.abs(x) * 2.0**-24, float(np.finfo(np.float32).smallest_subnormal) / 2)
    assert (np.abs(there_and_back("float32", x, seed) - x) <= bound).all()


@given(x=numbers, seed=seeds)
def test_float16_errs_by_half_a_unit_in_the_last_place(x: Vector, seed: int) -> None:
    """Kills: going through bfloat16."""
    bound = np.maximum(np.abs(x) * 2.0**-11, float(np.finfo(np.float16).smallest_subnormal) / 2)
    assert (np.abs(there_and_back("float16", x, seed) - x) <= bound).all()


@given(x=numbers, seed=seeds)
def test_int8_errs_by_less_than_a_step(x: Vector, seed: int) -> None:
    """Kills: an int8 that wraps at 128, one scale for all arrays."""
    step = np.abs(x).max(initial=0.0) / 127 * (1 + 1e-6) + 1e-44
    assert (np.abs(there_and_back("int8", x, seed) - x) < step).all()
    assert (np.abs(there_and_back("int8", -x, seed) + x) < step).all()


@given(x=hnp.arrays(np.float64, 5, elements=st.floats(-10, 10)))
def test_int8_is_unbiased(x: Vector) -> None:
    """Kills: rounding to the nearest, whose error has the same sign each time."""
    x[0] = 10.0  # the scale
    draws = 2000
    tiled = np.tile(x, (draws, 1))
    mean = there_and_back("int8", tiled, seed=1).mean(axis=0)
    # Each draw is one of two neighbours a step apart, so its standard deviation is half a step at most.
    assert (np.abs(mean - x) <= 5 * (10 / 127) / 2 / np.sqrt(draws)).all()
