"""Judging answers of the PTM, which come from another process and may have a wrong shape."""

import numpy as np
import pytest

from fedbbpt.errors import InvalidTensor
from fedbbpt.tasks.judgement import judge
from fedbbpt.types import Output

LABELS = [np.array([0, 1, 1]), np.array([1])]


def test_parts_are_weighted_by_their_examples() -> None:
    found = judge(Output.LOSS_ONLY, [np.array([1.0, 2.0]), np.array([5.0, 6.0])], LABELS)
    np.testing.assert_allclose(found.objective, [2.0, 3.0])
    assert found.correct is None


def test_correct_classes_are_counted() -> None:
    found = judge(Output.LABEL_ARGMAX, [np.array([[0, 1, 0], [1, 0, 0]]), np.array([[1], [0]])], LABELS)
    np.testing.assert_array_equal(found.correct, [3, 0])
    np.testing.assert_array_equal(found.objective, [0.25, 1.0])
    assert found.losses is None


@pytest.mark.parametrize("output", Output)
def test_an_answer_to_other_examples_is_refused(output: Output) -> None:
    shape = {Output.LOSS_ONLY: (1, 1), Output.LABEL_ARGMAX: (1, 1)}.get(output, (1, 1, 2))
    with pytest.raises(InvalidTensor):
        judge(output, [np.zeros(shape), np.zeros(shape)], LABELS)
