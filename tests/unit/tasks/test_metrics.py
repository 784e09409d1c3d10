"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from fedbbpt.tasks.metrics import accuracy, by_class, confusion, macro_f1

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, -1])
"""Class 0: 3 of 4 right, predicted 4 times. Class 1: 2 of 3 right, predicted 3 times. Class 2: none predicted."""


def test_the_confusion_matrix_counts_true_against_predicted_classes() -> None:
    counts = confusion(LABELS, PREDICTED, 4)
    assert counts.tolist() == [[3, 1, 0, 0, 0], [1, 2, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert accuracy(counts) == 5 / 8


def test_precision_recall_and_f1_of_each_class() -> None:
    first, second, third, absent = by_class(confusion(LABELS, PREDICTED, 4))
    assert (first.examples, first.precision, first.recall, first.f1) == (4, 3 / 4, 3 / 4, 3 / 4)
    assert (second.examples, second.precision, second.recall) == (3, 2 / 3, 2 / 3)
    assert second.f1 == pytest.approx(2 / 3)
    assert (third.examples, third.precision, third.recall, third.f1) == (1, None, 0.0, 0.0)
    assert (absent.examples, absent.precision, absent.recall, absent.f1) == (0, None, None, None)


def test_macro_f1_is_the_mean_over_the_classes_that_occur() -> None:
    assert macro_f1(confusion(LABELS, PREDICTED, 4)) == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    # A class that is only predicted counts too: both F1 are 0.
    assert macro_f1(confusion(np.array([0]), np.array([1]), 3)) == 0.0
