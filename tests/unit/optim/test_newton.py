"""Newton steps within a trust region, on quadratics with a known minimum and on scores that are not linear."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.optim import newton
from fedbbpt.optim.newton import Newton, NewtonState
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.tasks.criterion import expansion as expansion_of
from fedbbpt.types import Expansion, Population, Scores

RNG = np.random.default_rng(0)
TARGET = np.array([1.0, -2.0, 0.5])
Z = np.array([0.5, 0.5, 0.5])
CURVATURE = np.diag([1.0, 4.0, 0.25])


def quadratic(z: npt.NDArray[np.float64]) -> float:
    return float(0.5 * (z - TARGET) @ CURVATURE @ (z - TARGET))


def expansion(moves: Population, z: npt.NDArray[np.float64] = Z) -> Expansion:
    """Returns the expansion of the quadratic around z."""
    losses = np.array([quadratic(z), *(quadratic(z + move) for move in moves)])
    return Expansion(losses, moves @ CURVATURE @ (z - TARGET), moves @ CURVATURE @ moves.T)


def step(
    z: npt.NDArray[np.float64], moves: Population, found: Expansion, ridge: float = 0.0, radius: float = 100.0
) -> npt.NDArray[np.float64]:
    """Returns the best point within the radius of z and in the span of moves from it."""
    mixtures, slopes, curvatures = newton.model(z, moves, found, ridge)
    return z + newton.within(slopes, curvatures, radius) @ mixtures @ moves


@pytest.mark.parametrize("count", [3, 7])
def test_moves_that_span_the_space_reach_the_minimum(count: int) -> None:
    moves = RNG.normal(size=(count, 3))
    np.testing.assert_allclose(step(Z, moves, expansion(moves)), TARGET, rtol=1e-6)


def test_fewer_moves_reach_the_best_point_of_their_span() -> None:
    moves = RNG.normal(size=(2, 3))
    np.testing.assert_allclose(moves @ CURVATURE @ (step(Z, moves, expansion(moves)) - TARGET), 0.0, atol=1e-6)


def test_the_ridge_draws_to_zero_for_moves_of_any_length() -> None:
    """Kills: a ridge on the mixture instead of on z, which would depend on the moves' lengths."""
    for moves in (np.eye(3), 0.01 * RNG.normal(size=(3, 3)), np.concatenate([np.eye(3), 1e-3 * np.eye(3)])):
        expected = np.diag(CURVATURE) * TARGET / (np.diag(CURVATURE) + 2)
        np.testing.assert_allclose(step(Z, moves, expansion(moves), ridge=2.0), expected, atol=1e-8)


@pytest.mark.parametrize("radius", [0.01, 0.5, 1.5, 100.0])
def test_a_step_is_the_best_within_the_radius(radius: float) -> None:
    reached = step(Z, np.eye(3), expansion(np.eye(3)), ridge=0.1, radius=radius)
    assert np.linalg.norm(reached - Z) <= radius * (1 + 1e-12)
    others = RNG.normal(size=(500, 3))
    others *= radius * RNG.uniform(size=(500, 1)) / np.linalg.norm(others, axis=1, keepdims=True)

    def objective(z: npt.NDArray[np.float64]) -> float:
        return quadratic(z) + 0.05 * float(z @ z)

    assert min(objective(Z + move) for move in others) >= objective(reached)


def test_the_model_is_the_objective_along_its_axes() -> None:
    axes, slopes, curvatures = newton.model(Z, np.eye(3), expansion(np.eye(3)), ridge=0.2)  # the moves are unit vectors
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    move = np.array([0.3, -0.4, 0.1])
    difference = quadratic(Z + move @ axes) - quadratic(Z) + 0.1 * float((Z + move @ axes) @ (Z + move @ axes) - Z @ Z)
    assert slopes @ move + curvatures @ move**2 / 2 == pytest.approx(difference)


def test_an_indefinite_hessian_still_descends() -> None:
    found = Expansion(np.zeros(3), np.array([1.0, 1.0]), np.diag([1.0, -0.5]))
    reached = step(np.zeros(2), np.eye(2), found, radius=2.0)
    assert (reached < 0).all() and np.linalg.norm(reached) <= 2.0 * (1 + 1e-12)


def test_moves_of_length_zero_leave_the_point() -> None:
    np.testing.assert_array_equal(step(Z, np.zeros((2, 3)), expansion(np.zeros((2, 3))), ridge=0.1), Z)


class Bent:
    """Scores that bend away from a line, so that steps which trust the slopes at one point go too far."""

    def __init__(self, seed: int) -> None:
        self._weights = np.random.default_rng(seed).normal(size=(12, 40, 3))
        best = 0.4 * np.random.default_rng(99).normal(size=12)  # the same for all clients
        self.labels = self.scores(best[None])[0].argmax(axis=1)

    def scores(self, population: Population) -> Scores:
        raw: npt.NDArray[np.float64] = 4 * np.sin(np.einsum("pj,jbk->pbk", population, self._weights))
        return raw.astype(np.float32)

    def expansion(self, population: Population) -> Expansion:
        return expansion_of(self.scores(population), np.zeros((0, 3)), self.labels)

    def loss(self, z: npt.NDArray[np.float64]) -> float:
        return float(cross_entropy(self.scores(z[None]), self.labels)[0])


def after(search: Newton, state: NewtonState, seed: int, clients: list[Bent]) -> NewtonState:
    """Returns the state after a population that clients of equal weight have scored."""
    population = newton.candidates(state.mean, state.center, search.scale, seed, population=6, offsets=0)
    found = [client.expansion(np.concatenate([state.mean[None], population])) for client in clients]
    losses, gradient, hessian = (
        np.asarray(sum(getattr(each, name) for each in found) / len(found))
        for name in ("losses", "gradient", "hessian")
    )
    return search.tell(state, population, Expansion(losses, gradient, hessian), float(losses[1] - losses[0]))


@pytest.mark.parametrize("seed", range(6))
def test_a_step_is_within_the_radius_and_the_best_point_gets_worse_by_shortest_steps_only(seed: int) -> None:
    client, search = Bent(seed), Newton(population=6, sigma=0.5, ridge=1e-3)
    state = search.init(np.zeros(12))
    smallest = newton.SMALLEST * state.radius

    def objective(z: npt.NDArray[np.float64]) -> float:
        return client.loss(z) + 5e-4 * float(z @ z)

    best = first = objective(state.center)
    for round in range(60):
        later = after(search, state, round, [client])
        assert np.linalg.norm(later.mean - later.center) <= later.radius * (1 + 1e-5)
        assert objective(later.center) <= objective(state.center) + 1e-9 or state.radius == pytest.approx(smallest)
        state, best = later, min(best, objective(later.center))
    assert best < 0.85 * first


def on_quadratic(search: Newton, state: NewtonState, seed: int, decrease: float | None = None) -> NewtonState:
    """Returns the state after a population on the quadratic, with another decrease if one is given."""
    population = newton.candidates(state.mean, state.center, search.scale, seed, population=4, offsets=0)
    found = expansion(population - state.mean, state.mean)
    actual = quadratic(state.center) - quadratic(state.mean)
    return search.tell(state, population, found, actual if decrease is None else decrease)


def test_on_a_convex_quadratic_no_step_is_refused_and_the_minimum_is_reached() -> None:
    search = Newton(population=4, sigma=0.2, ridge=0.0)
    state = search.init(Z)
    for round in range(40):
        later = on_quadratic(search, state, round)
        assert quadratic(later.center) <= quadratic(state.center)
        if state.predicted > 1e-6:  # afterwards float32 decides
            np.testing.assert_array_equal(later.center, state.mean)
        state = later
    np.testing.assert_allclose(state.center, TARGET, atol=1e-3)


@pytest.mark.parametrize("decrease", [-0.1, np.nan, -np.inf])
def test_a_step_that_raised_the_loss_is_refused_and_a_shorter_one_is_made(decrease: float) -> None:
    search = Newton(population=4, sigma=0.4, ridge=0.0)
    state = on_quadratic(search, search.init(Z), 0)
    refused = on_quadratic(search, state, 1, decrease)
    np.testing.assert_array_equal(refused.center, Z)
    assert refused.radius == pytest.approx(newton.SHRINKS * state.radius)
    assert np.linalg.norm(refused.mean - Z) == pytest.approx(refused.radius, rel=1e-6)
    assert 0 < refused.predicted < state.predicted
    np.testing.assert_array_equal(refused.mixtures, state.mixtures)
    np.testing.assert_array_equal(on_quadratic(search, state, 1).center, state.mean)


def test_the_shortest_step_is_accepted_in_any_case() -> None:
    """Kills: a step of one round's clients that all later clients refuse, and that is tried for ever."""
    search = Newton(population=4, sigma=0.4, ridge=0.0)
    state = on_quadratic(search, search.init(Z), 0)
    smallest = newton.SMALLEST * state.radius
    while state.radius > smallest:
        state = on_quadratic(search, state, state.generation, decrease=-1.0)
        np.testing.assert_array_equal(state.center, Z)
    accepted = on_quadratic(search, state, 9, decrease=-1.0)
    np.testing.assert_array_equal(accepted.center, state.mean)
    assert accepted.radius == state.radius and accepted.predicted > 0


def test_the_radius_grows_after_good_steps_as_long_as_it_and_stays_within_limits() -> None:
    search = Newton(population=4, sigma=1.0, ridge=0.0)
    initial = search.init(Z).radius
    long = replace(search.init(Z), mean=Z + np.array([initial, 0, 0]), predicted=0.1, generation=1)
    short = replace(long, mean=Z + np.array([initial / 2, 0, 0]))
    widest = replace(long, radius=newton.LARGEST * initial, mean=Z + newton.LARGEST * (long.mean - Z))

    def radius(state: NewtonState, decrease: float) -> float:
        return on_quadratic(search, state, 0, decrease).radius

    assert radius(long, 0.1) == pytest.approx(newton.GROWS * initial)
    assert radius(short, 0.1) == radius(long, 0.05) == initial
    assert radius(widest, 0.1) == pytest.approx(newton.LARGEST * initial)
    assert radius(replace(long, mean=Z + 1e-6), -1.0) == pytest.approx(newton.SMALLEST * initial)


def test_clients_that_come_and_go_do_not_stop_the_search() -> None:
    clients, search = [Bent(seed) for seed in range(3)], Newton(population=6, sigma=1.0, ridge=1e-2)
    state = search.init(np.zeros(12))

    def loss(z: npt.NDArray[np.float64]) -> float:
        return float(np.mean([client.loss(z) for client in clients]))

    before = loss(state.center)
    for round in range(60):
        state = after(search, state, round, [client for k, client in enumerate(clients) if (k + round) % 3])
    assert loss(state.center) < 0.95 * before


def test_candidates_are_the_centre_and_points_with_the_means_offsets() -> None:
    mean, center = np.arange(5.0), np.arange(5.0) - 1.0
    found = newton.candidates(mean, center, 0.1, seed=1, population=6, offsets=2)
    np.testing.assert_array_equal(found[0], center)
    np.testing.assert_array_equal(found[1:, 3:], np.tile(mean[3:], (5, 1)))
    assert (found[1:, :3].std(axis=0) > 0).all()
    np.testing.assert_array_equal(found, found.astype(np.float32))
