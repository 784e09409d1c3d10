"""The mapping from unknown classes to the labels of a classifier."""

import numpy as np
import pytest

from fedbbpt.errors import InvalidData
from fedbbpt.tasks.label_mapping import by_frequency


def scores(answers: list[int], labels: int) -> np.ndarray:
    return np.eye(labels, dtype=np.float32)[answers]


def test_each_class_takes_the_label_that_its_examples_get_most_often() -> None:
    assert by_frequency(scores([3, 3, 0, 2, 2, 1], 4), np.array([0, 0, 0, 1, 1, 1]), 2) == (3, 2)


def test_the_class_with_the_largest_share_chooses_first_and_no_label_is_taken_twice() -> None:
    """Class 1 always gets label 2, class 0 in two of three cases, so it takes its next. Kills: counts for shares."""
    assert by_frequency(scores([2, 2, 1, 2, 2], 3), np.array([0, 0, 0, 1, 1]), 2) == (1, 2)


def test_a_class_without_examples_takes_a_remaining_label() -> None:
    assert by_frequency(scores([0, 0], 2), np.array([1, 1]), 2) == (1, 0)


def test_more_classes_than_labels_are_refused() -> None:
    with pytest.raises(InvalidData, match="3 classes, 2 labels"):
        by_frequency(scores([0, 1, 1], 2), np.array([0, 1, 2]), 3)
