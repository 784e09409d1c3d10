"""The offsets minimise their objective, and improve loss and accuracy."""

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.tasks.criterion import accuracy, cross_entropy
from fedbbpt.tasks.offsets import RIDGES, choose_offsets, fit_offsets

Shots = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@pytest.fixture
def shots() -> Shots:
    """Scores that carry some information on the class, and strongly prefer class 2."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 16)
    scores = draw.normal(size=(64, 4)) + 1.5 * np.eye(4)[labels] + np.array([0.0, -1.0, 4.0, 0.5])
    return scores.astype(np.float32), labels


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("ridge", [1e-4, 1e-3, 1.0])
def test_the_gradient_vanishes_at_the_offsets(shots: Shots, ridge: float) -> None:
    scores, labels = shots
    offsets = fit_offsets(scores, labels, ridge)
    surplus = (softmax(scores.astype(np.float64) + offsets) - np.eye(4)[labels]).mean(axis=0)
    np.testing.assert_allclose(surplus + ridge * offsets, 0.0, atol=1e-8)


def test_offsets_improve_loss_and_accuracy(shots: Shots) -> None:
    scores, labels = shots
    shifted = (scores + fit_offsets(scores, labels, 1e-3)).astype(np.float32)
    assert cross_entropy(shifted[None], labels)[0] < cross_entropy(scores[None], labels)[0] - 0.5
    assert accuracy(shifted[None], labels)[0] > accuracy(scores[None], labels)[0] + 0.2


def test_a_constant_on_all_classes_does_not_change_the_offsets(shots: Shots) -> None:
    scores, labels = shots
    np.testing.assert_allclose(
        fit_offsets(scores + np.float32(64), labels, 1e-3), fit_offsets(scores, labels, 1e-3), atol=1e-4
    )


def test_a_shift_of_the_scores_is_reversed(shots: Shots) -> None:
    scores, labels = shots
    favour = np.array([2.0, 0.0, -1.0, -1.0])
    np.testing.assert_allclose(
        fit_offsets(scores + favour, labels, 1e-9), fit_offsets(scores, labels, 1e-9) - favour, atol=1e-4
    )


def test_the_offsets_sum_to_zero(shots: Shots) -> None:
    assert abs(fit_offsets(*shots, 1e-3).sum()) < 1e-9


def test_a_class_without_examples_gets_a_finite_offset(shots: Shots) -> None:
    scores, labels = shots
    offsets = fit_offsets(scores[labels != 3], labels[labels != 3], 1e-3)
    assert np.isfinite(offsets).all() and offsets[3] == offsets.min()


def test_distant_scores_converge() -> None:
    """A full Newton step overshoots here, because one class is ahead by hundreds."""
    labels = np.array([0, 1, 0, 1])
    scores = np.array([[0.0, 300.0], [0.0, 301.0], [0.0, 299.0], [0.0, 303.0]], np.float32)
    shifted = (scores + fit_offsets(scores, labels, 1e-3)).astype(np.float32)
    assert cross_entropy(shifted[None], labels)[0] < 5.0 < cross_entropy(scores[None], labels)[0]


def test_the_ridge_of_the_chosen_offsets_is_the_best_in_cross_validation() -> None:
    """Few examples that all classes fit equally well: the largest ridge follows the noise least."""
    draw = np.random.default_rng(5)
    scores, labels = draw.normal(size=(15, 3)).astype(np.float32), draw.integers(3, size=15)
    np.testing.assert_array_equal(choose_offsets(scores, labels), fit_offsets(scores, labels, max(RIDGES)))


def test_a_small_ridge_is_chosen_where_one_class_is_far_ahead(shots: Shots) -> None:
    scores, labels = shots
    favoured = (scores + np.array([0.0, 30.0, 0.0, 0.0])).astype(np.float32)
    assert (favoured + choose_offsets(favoured, labels)).argmax(axis=1).tolist() != [1] * len(labels)
    np.testing.assert_array_equal(choose_offsets(favoured, labels), fit_offsets(favoured, labels, min(RIDGES)))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_offsets_can_be_chosen_with_few_examples(count: int) -> None:
    scores = np.zeros((count, 3), np.float32)
    assert np.isfinite(choose_offsets(scores, np.arange(count) % 3)).all()
