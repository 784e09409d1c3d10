"""Cross-entropy and counts against numbers computed by hand, and with scores that are NaN or infinite."""

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import InvalidTensor
from fedbbpt.tasks.criterion import accuracy, correct, cross_entropy, expansion

LABELS = np.array([0, 1])
# Softmax of the rows: (1/4, 3/4) and (1/2, 1/2) for the first prompt; both classes even for the second.
SCORES = np.array([[[0.0, np.log(3.0)], [1.0, 1.0]], [[0.0, 0.0], [2.0, 2.0]]], np.float32)


def test_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    expected = [(np.log(4) + np.log(2)) / 2, np.log(2)]
    np.testing.assert_allclose(cross_entropy(SCORES, LABELS), expected, rtol=1e-7)
    assert cross_entropy(SCORES, LABELS).dtype == np.float64


def test_large_scores_do_not_overflow() -> None:
    scores = np.array([[[3e38, 0.0], [0.0, -3e38]]], np.float32)
    np.testing.assert_array_equal(cross_entropy(scores, np.array([0, 0])), [0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_loss_never_wins(bad: float) -> None:
    scores = SCORES.copy()
    scores[1, 0, 0] = bad
    losses = cross_entropy(scores, LABELS)
    assert losses[1] == np.inf and np.isfinite(losses[0])


def test_an_impossible_class_costs_nothing_unless_it_is_the_true_one() -> None:
    scores = np.array([[[0.0, -np.inf]]], np.float32)
    assert cross_entropy(scores, np.array([0]))[0] == 0.0
    assert cross_entropy(scores, np.array([1]))[0] == np.inf


def test_correct_counts_the_examples_with_the_true_class_on_top() -> None:
    np.testing.assert_array_equal(correct(SCORES, np.array([1, 0])), [2, 1])
    np.testing.assert_array_equal(accuracy(SCORES, np.array([1, 0])), [1.0, 0.5])


def test_an_example_with_a_nan_score_is_never_correct() -> None:
    scores = np.array([[[np.nan, 0.0], [0.0, np.nan]]], np.float32)
    assert all(correct(scores, np.array(labels))[0] == 0 for labels in ([0, 0], [0, 1], [1, 0], [1, 1]))


@pytest.mark.parametrize("labels", [[0], [0, 1, 1], [0, 2], [-1, 0], []])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(InvalidTensor, match="do not fit"):
        cross_entropy(SCORES, np.array(labels, np.int64))


def test_arguments_are_not_changed() -> None:
    scores = SCORES.copy()
    cross_entropy(scores, LABELS)
    np.testing.assert_array_equal(scores, SCORES)


def test_the_expansion_is_the_loss_of_mixed_scores_to_second_order() -> None:
    """Against differences of the loss itself. Kills: a Hessian without the mean's outer product, offsets left out."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(4, 5, 3)), np.array([0, 2, 1, 1, 0])
    shifts = 0.25 * np.eye(3)
    found = expansion(scores.astype(np.float32), shifts, labels)
    scores = scores.astype(np.float32).astype(np.float64)

    def loss(a: npt.NDArray[np.float64]) -> float:
        mixed = scores[0] + np.tensordot(a[:3], scores[1:] - scores[0], 1) + a[3:] @ shifts
        return float((np.log(np.exp(mixed).sum(1)) - mixed[np.arange(5), labels]).mean())

    losses = [loss(np.eye(6)[i]) for i in range(3)]
    np.testing.assert_allclose(found.losses, [loss(np.zeros(6)), *losses], rtol=1e-6)
    steps = 1e-4 * np.eye(6)
    gradient = [(loss(step) - loss(-step)) / 2e-4 for step in steps]
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-7)
    hessian = [[(loss(a + b) - loss(a - b) - loss(b - a) + loss(-a - b)) / 4e-8 for b in steps] for a in steps]
    np.testing.assert_allclose(found.hessian, hessian, atol=1e-6)


def test_a_candidate_without_scores_has_no_part_in_the_expansion() -> None:
    scores = np.concatenate([SCORES, SCORES])
    scores[2, 1, 0] = np.nan
    found, without = expansion(scores, np.eye(2), LABELS), expansion(scores[[0, 1, 3]], np.eye(2), LABELS)
    rest = [0, 2, 3, 4]
    assert np.isnan(found.gradient[1]) and not found.hessian[1].any() and not found.hessian[:, 1].any()
    np.testing.assert_allclose(found.gradient[rest], without.gradient)
    np.testing.assert_allclose(found.hessian[np.ix_(rest, rest)], without.hessian)
    scores[0, 0, 0] = np.inf
    assert np.isnan(expansion(scores, np.eye(2), LABELS).gradient).all()
