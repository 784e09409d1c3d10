"""Laws of the criterion."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.tasks.criterion import correct, cross_entropy

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Scores `[P, B, K]` and labels `[B]`; whole scores, so that shifting them is exact."""
    p, b, k = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 5))
    scores = draw(hnp.arrays(np.int64, (p, b, k), elements=st.integers(-50, 50))).astype(np.float32)
    return scores, draw(hnp.arrays(np.int64, b, elements=st.integers(0, k - 1)))


@given(batches(), st.integers(-1000, 1000))
def test_a_constant_on_all_classes_does_not_change_the_loss(batch: Batch, shift: int) -> None:
    """Kills: exponentiating scores without subtracting the largest one of the row."""
    scores, labels = batch
    np.testing.assert_array_equal(cross_entropy(scores + np.float32(shift), labels), cross_entropy(scores, labels))


@given(batches())
def test_the_loss_of_a_prompt_does_not_depend_on_other_prompts(batch: Batch) -> None:
    """Kills: taking the largest score, or the mean, over the population instead of over a row."""
    scores, labels = batch
    alone = np.concatenate([cross_entropy(scores[p : p + 1], labels) for p in range(len(scores))])
    np.testing.assert_array_equal(cross_entropy(scores, labels), alone)


@given(batches())
def test_the_order_of_examples_does_not_matter(batch: Batch) -> None:
    """Kills: matching labels with the wrong axis."""
    scores, labels = batch
    np.testing.assert_allclose(cross_entropy(scores[:, ::-1], labels[::-1]), cross_entropy(scores, labels), rtol=1e-12)
    np.testing.assert_array_equal(correct(scores[:, ::-1], labels[::-1]), correct(scores, labels))


@given(batches())
def test_the_loss_is_at_least_log_two_for_each_wrong_answer(batch: Batch) -> None:
    """Kills: a loss with the wrong sign, or of another class than the example's own."""
    scores, labels = batch
    wrong = len(labels) - correct(scores, labels)
    assert (cross_entropy(scores, labels) * len(labels) >= wrong * np.log(2) - 1e-9).all()
