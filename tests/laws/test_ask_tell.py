"""The laws of interfaces.Optimizer, on every search in fedbbpt/optim."""

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.interfaces import Optimizer
from fedbbpt.optim.cmaes import CmaEs
from fedbbpt.optim.spsa import SpsaGc
from fedbbpt.types import Array, pack, unpack

N = 4
SEARCHES: dict[str, Optimizer[Any]] = {
    "full": CmaEs(population=6, sigma=0.5),
    "diagonal": CmaEs(population=6, sigma=0.5, covariance="diagonal"),
    "identity": CmaEs(population=6, sigma=0.5, covariance="identity", parents="all"),
    "spsa": SpsaGc(estimates=3, a=0.1, alpha=0.4, o=1.0, c=0.1, gamma=0.1, beta=0.9),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
losses = hnp.arrays(np.float64, 6, elements=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([np.nan, np.inf, -np.inf])))
generations = st.lists(losses, min_size=1, max_size=8)
seeds = st.integers(0, 2**64 - 1)
means = hnp.arrays(np.float64, N, elements=st.floats(-100, 100))


def frozen(state: Any) -> Any:
    """Returns the state with read-only arrays."""
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return state


@each_search
@given(mean=means, told=generations, seed=seeds)
def test_ask_and_tell_leave_their_arguments_unchanged(
    search: Optimizer[Any], mean: npt.NDArray[np.float64], told: list[npt.NDArray[np.float64]], seed: int
) -> None:
    """Kills: `state.path_sigma *= 1 - c_sigma`, `losses[~finite] = inf`."""
    mean.flags.writeable = False
    state = frozen(search.init(mean))
    for row in told:
        population = search.ask(state, seed)
        before = population.copy(), row.copy()
        population.flags.writeable = row.flags.writeable = False
        state = frozen(search.tell(state, population, row))
        np.testing.assert_array_equal(population, before[0])
        np.testing.assert_array_equal(row, before[1])


@each_search
@given(mean=means, told=generations, seed=seeds)
def test_candidates_stay_finite_after_any_losses(
    search: Optimizer[Any], mean: npt.NDArray[np.float64], told: list[npt.NDArray[np.float64]], seed: int
) -> None:
    """Kills: weighing candidates by their losses, a pair of SPSA that keeps an infinite loss."""
    state = search.init(mean)
    for row in told:
        state = search.tell(state, search.ask(state, seed), row)
    population = search.ask(state, seed)
    assert population.shape == (6, N)
    assert np.isfinite(population).all()


@each_search
@given(mean=means, told=generations, seed=seeds)
def test_a_stored_state_continues_bit_for_bit(
    search: Optimizer[Any], mean: npt.NDArray[np.float64], told: list[npt.NDArray[np.float64]], seed: int
) -> None:
    """Kills: a generator kept inside the search, a field that `pack` loses."""

    def walk(stored: bool) -> dict[str, Array]:
        state = search.init(mean)
        for row in told:
            state = search.tell(state, search.ask(state, seed), row)
            state = unpack(type(state), pack(state)) if stored else state
        return pack(state)

    straight, by_store = walk(stored=False), walk(stored=True)
    for name, array in straight.items():
        np.testing.assert_array_equal(array, by_store[name])
