"""A Newton step in the span of a population, on quadratics with a known minimum."""

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.optim import newton
from fedbbpt.types import Expansion

RNG = np.random.default_rng(0)
TARGET = np.array([1.0, -2.0, 0.5])
Z = np.array([0.5, 0.5, 0.5])
CURVATURE = np.diag([1.0, 4.0, 0.25])


def expansion(moves: npt.NDArray[np.float64]) -> Expansion:
    """Returns the expansion of (z - TARGET) CURVATURE (z - TARGET) / 2 around Z."""
    away = Z - TARGET
    return Expansion(0.5 * away @ CURVATURE @ away, moves @ CURVATURE @ away, moves @ CURVATURE @ moves.T)


@pytest.mark.parametrize("count", [3, 7])
def test_moves_that_span_the_space_reach_the_minimum(count: int) -> None:
    moves = RNG.normal(size=(count, 3))
    move = newton.step(Z, moves, expansion(moves), ridge=0.0, damping=1e-12, radius=100.0)
    np.testing.assert_allclose(Z + move, TARGET, rtol=1e-6)


def test_fewer_moves_reach_the_best_point_of_their_span() -> None:
    moves = RNG.normal(size=(2, 3))
    move = newton.step(Z, moves, expansion(moves), ridge=0.0, damping=1e-12, radius=100.0)
    np.testing.assert_allclose(moves @ CURVATURE @ (Z + move - TARGET), 0.0, atol=1e-6)


def test_ridge_draws_to_zero_and_damping_to_the_point_for_moves_of_any_length() -> None:
    """Kills: a ridge on the mixture instead of on z, which would depend on the moves' lengths."""
    for moves in (np.eye(3), 0.01 * RNG.normal(size=(3, 3))):
        by_ridge = newton.step(Z, moves, expansion(moves), ridge=2.0, damping=1e-12, radius=100.0)
        np.testing.assert_allclose(Z + by_ridge, np.diag(CURVATURE) * TARGET / (np.diag(CURVATURE) + 2), atol=1e-9)
        damped = newton.step(Z, moves, expansion(moves), ridge=0.0, damping=2.0, radius=100.0)
        np.testing.assert_allclose(damped, np.diag(CURVATURE) / (np.diag(CURVATURE) + 2) * (TARGET - Z), atol=1e-9)


def test_a_step_is_no_longer_than_the_radius() -> None:
    free = newton.step(Z, np.eye(3), expansion(np.eye(3)), ridge=0.0, damping=1e-9, radius=100.0)
    short = newton.step(Z, np.eye(3), expansion(np.eye(3)), ridge=0.0, damping=1e-9, radius=0.1)
    np.testing.assert_allclose(short, free * 0.1 / np.linalg.norm(free))


def test_an_indefinite_hessian_still_descends() -> None:
    gradient = np.array([1.0, 1.0])
    move = newton.step(np.zeros(2), np.eye(2), Expansion(0.0, gradient, np.diag([1.0, -0.5])), 0.0, 0.1, radius=2.0)
    assert np.isfinite(move).all() and (move < 0).all()
