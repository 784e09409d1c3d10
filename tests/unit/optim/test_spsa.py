"""SPSA with gradient correction: its equations, and its convergence."""

import math

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.optim.spsa import SpsaGc, SpsaState


def spsa(**changes: float) -> SpsaGc:
    gains = {"a": 0.1, "alpha": 0.4, "o": 1.0, "c": 0.05, "gamma": 0.1, "beta": 0.9} | changes
    return SpsaGc(estimates=5, **gains)


def test_a_step_follows_the_papers_equations() -> None:
    search = spsa()
    state = SpsaState(point=np.array([1.0, -1.0]), momentum=np.array([0.5, 0.0]), step=3)
    population = search.ask(state, seed=8)
    losses = (population**2).sum(axis=1)
    c_i, a_i = 0.05 / 3**0.1, 0.1 / 4**0.4
    delta = (population[:5] - state.point) / c_i
    g = np.mean([(losses[j] - losses[j + 5]) / (2 * c_i * delta[j]) for j in range(5)], axis=0)
    momentum = 0.9 * state.momentum + g
    told = search.tell(state, population, losses)
    np.testing.assert_allclose(told.momentum, momentum)
    np.testing.assert_allclose(told.point, state.point - a_i * (g + 0.9 * momentum))
    assert told.step == 4


def test_candidates_are_mirrored_pairs_of_the_given_width() -> None:
    search = spsa()
    state = SpsaState(point=np.full(50, 2.0), momentum=np.zeros(50), step=2)
    plus, minus = np.split(search.ask(state, seed=1), 2)
    np.testing.assert_allclose(plus + minus, 4.0)
    width = np.abs(plus - state.point) / (0.05 / 2**0.1)
    assert 0.5 <= width.min() and width.max() <= 1.0
    assert len({tuple(row) for row in plus}) == 5


def test_spsa_descends_a_quadratic() -> None:
    search = spsa(a=0.02)
    state = search.init(np.full(20, 1.0))
    for step in range(400):
        population = search.ask(state, seeds.derive(0, step))
        state = search.tell(state, population, (population**2).sum(axis=1))
    assert (state.point**2).sum() < 0.05


def test_momentum_continues_on_a_plateau() -> None:
    search = spsa()
    state = SpsaState(point=np.zeros(3), momentum=np.ones(3), step=1)
    told = search.tell(state, search.ask(state, 0), np.zeros(10))
    np.testing.assert_allclose(told.point, -0.1 / 2**0.4 * 0.9**2)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_pair_with_a_broken_loss_is_left_out(broken: float) -> None:
    search = spsa()
    state = search.init(np.array([1.0, 2.0]))
    population = search.ask(state, seed=4)
    losses = (population**2).sum(axis=1)
    losses[7] = broken
    kept = np.array([0, 1, 3, 4, 5, 6, 8, 9])
    told = search.tell(state, population, losses)
    np.testing.assert_allclose(told.point, search.tell(state, population[kept], losses[kept]).point)


def test_without_any_sound_pair_the_point_stays() -> None:
    search = spsa()
    state = search.init(np.array([1.0, 2.0]))
    told = search.tell(state, search.ask(state, 0), np.full(10, math.nan))
    np.testing.assert_array_equal(told.point, state.point)


def test_a_point_too_large_to_be_perturbed_stays_finite() -> None:
    search = spsa()
    state = search.init(np.array([1e30, 1.0]))
    told = search.tell(state, search.ask(state, 0), np.arange(10.0))
    assert told.point[0] == 1e30
    assert np.isfinite(told.point).all()
