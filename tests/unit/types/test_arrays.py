"""States become named arrays and come back."""

from dataclasses import dataclass

import numpy as np

from fedbbpt.types import Array, pack, unpack


@dataclass(frozen=True, slots=True)
class Inner:
    vector: Array
    count: int


@dataclass(frozen=True, slots=True)
class Outer:
    search: Inner
    factor: float


def test_a_state_within_a_state_is_packed_under_its_name() -> None:
    arrays = pack(Outer(Inner(np.arange(3.0), 4), 0.5))
    assert sorted(arrays) == ["factor", "search.count", "search.vector"]
    back = unpack(Outer, arrays)
    np.testing.assert_array_equal(back.search.vector, np.arange(3.0))
    assert (back.search.count, back.factor) == (4, 0.5)
