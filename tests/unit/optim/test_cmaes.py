"""CMA-ES: its constants, its samples, and its convergence."""

import math

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.optim.cmaes import CmaEs, CmaState, Covariance, constants, sample
from fedbbpt.types import pack, unpack


def test_constants_match_the_tutorials_default_population() -> None:
    k = constants(n=10, population=10, covariance="full", parents="half")
    # ln(5.5) - ln(i), normalised
    np.testing.assert_allclose(k.weights, [0.4563, 0.2708, 0.1622, 0.0852, 0.0255], atol=5e-5)
    assert k.mu_eff == pytest.approx(3.167, abs=1e-3)
    assert k.c_sigma == pytest.approx((k.mu_eff + 2) / (10 + k.mu_eff + 5))
    assert k.d_sigma == pytest.approx(1 + k.c_sigma)
    assert k.chi_n == pytest.approx(math.sqrt(10) * (1 - 1 / 40 + 1 / 2100), rel=2e-4)


def test_all_parents_have_the_weights_of_fedbpts_reference_code() -> None:
    k = constants(n=500, population=10, covariance="identity", parents="all")
    expected = [0.280, 0.197, 0.149, 0.115, 0.088, 0.067, 0.048, 0.032, 0.018, 0.006]
    np.testing.assert_allclose(k.weights, expected, atol=6e-4)
    assert k.mu_eff == pytest.approx(5.94, abs=0.01)


@pytest.mark.parametrize("population", [1, 2, 3])
def test_few_candidates_still_have_parents(population: int) -> None:
    for parents in ("half", "all"):
        k = constants(n=5, population=population, covariance="full", parents=parents)
        assert k.weights.sum() == pytest.approx(1.0)
        assert 1 <= len(k.weights) <= population


def test_a_diagonal_learns_faster_by_a_third_of_n_plus_two() -> None:
    full = constants(100, 20, "full", "half")
    diagonal = constants(100, 20, "diagonal", "half")
    assert diagonal.c_1 == pytest.approx(34 * full.c_1)
    assert diagonal.c_mu == pytest.approx(34 * full.c_mu)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "identity"])
def test_cmaes_finds_the_minimum_of_a_quadratic(covariance: Covariance) -> None:
    search = CmaEs(population=12, sigma=0.5, covariance=covariance)
    state = search.init(np.full(10, 1.0))
    for generation in range(200):
        population = search.ask(state, seeds.derive(0, generation))
        state = search.tell(state, population, (population**2).sum(axis=1))
    assert (state.mean**2).sum() < 1e-8


def test_only_the_order_of_losses_counts() -> None:
    search = CmaEs(population=8, sigma=1.0)
    state = search.init(np.zeros(4))
    population = search.ask(state, 3)
    losses = (population**2).sum(axis=1)
    one, other = search.tell(state, population, losses), search.tell(state, population, np.exp(5 * losses))
    np.testing.assert_array_equal(one.mean, other.mean)
    assert one.sigma == other.sigma


def test_nan_and_infinite_losses_are_worst() -> None:
    search = CmaEs(population=8, sigma=1.0)
    state = search.init(np.zeros(4))
    population = search.ask(state, 3)
    losses = np.arange(8.0)
    broken = losses.copy()
    broken[4:] = [math.nan, math.inf, math.nan, -math.inf]  # were the worst half before
    np.testing.assert_array_equal(
        search.tell(state, population, losses).mean, search.tell(state, population, broken).mean
    )


def test_equal_losses_keep_the_order_of_the_candidates() -> None:
    search = CmaEs(population=400, sigma=1.0)
    state = search.init(np.zeros(4))
    population = search.ask(state, 3)
    told = search.tell(state, population, np.tile([0.0, 1.0], 200))
    k = constants(4, 400, "full", "half")
    np.testing.assert_allclose(told.mean, k.weights @ population[::2])


def test_the_step_size_grows_by_a_factor_of_e_at_most() -> None:
    search = CmaEs(population=6, sigma=1.0)
    state = search.init(np.zeros(4))
    told = search.tell(state, np.full((6, 4), 1e6), np.zeros(6))
    assert told.sigma == pytest.approx(math.e)


def test_samples_have_the_given_mean_and_scale() -> None:
    drawn = sample(np.array([1.0, -2.0]), np.array([0.5, 3.0]), seed=5, population=20_000)
    np.testing.assert_allclose(drawn.mean(axis=0), [1, -2], atol=0.06)
    np.testing.assert_allclose(drawn.std(axis=0), [0.5, 3], rtol=0.02)


def test_candidates_follow_a_full_covariance() -> None:
    search = CmaEs(population=20_000, sigma=2.0)
    covariance = np.array([[2.0, 0.9], [0.9, 1.0]])
    state = CmaState(np.zeros(2), 2.0, covariance, np.zeros(2), np.zeros(2), 0)
    np.testing.assert_allclose(np.cov(search.ask(state, 1).T), 4 * covariance, rtol=0.05)


def test_a_search_continues_from_stored_arrays_bit_for_bit() -> None:
    search = CmaEs(population=8, sigma=0.7, covariance="diagonal")
    state = search.init(np.zeros(6))
    for generation in range(5):
        population = search.ask(state, generation)
        state = search.tell(state, population, population.sum(axis=1))
    restored = unpack(CmaState, pack(state))
    np.testing.assert_array_equal(search.ask(state, 9), search.ask(restored, 9))
