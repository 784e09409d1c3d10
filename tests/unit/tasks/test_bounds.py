"""Scores of which only an upper bound is known."""

import numpy as np

from fedbbpt.tasks.bounds import pessimistic
from fedbbpt.tasks.criterion import cross_entropies, expansion

LABELS = np.array([0])


def _loss(probabilities: list[float], bounds: list[bool]) -> float:
    scores = np.log(np.array([[probabilities]], np.float32))
    return float(cross_entropies(pessimistic(scores, np.array([[bounds]]), LABELS), LABELS)[0, 0])


def test_leaving_the_told_tokens_never_pays() -> None:
    """Kills: the bound in place of the score; the same loss as at the end of the list."""
    assert _loss([0.010, 0.3], [True, False]) > _loss([0.010, 0.3], [False, False]) + 1
    assert _loss([0.010, 0.3], [True, False]) > _loss([0.002, 0.3], [False, False])


def test_nothing_known_costs_more_than_a_guess() -> None:
    assert _loss([0.01, 0.01], [True, True]) > 2 > np.log(2)


def test_bound_of_another_class_stays_an_upper_limit_of_the_loss() -> None:
    assert np.isclose(_loss([0.3, 0.01], [False, True]), -np.log(0.3 / 0.31), atol=1e-6)


def test_measured_scores_stay_bit_for_bit() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    labels = np.array([0, 1, 1, 0])
    same = pessimistic(scores, np.zeros(scores.shape, bool), labels)
    assert same.dtype == np.float32 and np.array_equal(same, scores)
    lowered = pessimistic(scores, np.ones(scores.shape, bool), labels)
    assert np.isfinite(expansion(lowered, np.eye(2), labels).gradient).all()
