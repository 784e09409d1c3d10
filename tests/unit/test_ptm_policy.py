"""What leaves under each output policy, and what LOSS_ONLY asks of handles."""

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, PolicyForbids
from fedbbpt.ptm.policy import LabelBook, answer, check_labels
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.types import Output

SCORES = np.random.default_rng(0).normal(0, 30, (3, 10, 4)).astype(np.float32)
LABELS = np.arange(10) % 4
NAMES = [bytes([index]) for index in range(10)]


def test_each_answer_follows_from_the_scores() -> None:
    assert answer(Output.LABEL_LOGITS, SCORES, None) is SCORES
    logs = answer(Output.LABEL_LOGPROBS, SCORES, None)
    assert logs.dtype == np.float32 and np.allclose(np.exp(logs.astype(np.float64)).sum(axis=2), 1, atol=1e-5)
    assert np.allclose(logs - logs[..., :1], SCORES - SCORES[..., :1], atol=1e-4)
    choices = answer(Output.LABEL_ARGMAX, SCORES, None)
    assert choices.dtype == np.int32 and np.array_equal(choices, logs.argmax(axis=2))
    losses = answer(Output.LOSS_ONLY, SCORES, LABELS)
    assert losses.dtype == np.float64 and np.allclose(losses, cross_entropy(SCORES, LABELS), rtol=1e-12)


def test_labels_come_where_they_are_needed_and_nowhere_else() -> None:
    check_labels(Output.LOSS_ONLY, LABELS, 4)
    check_labels(Output.LABEL_LOGITS, None, 4)
    for output, labels in (
        (Output.LOSS_ONLY, None),
        (Output.LOSS_ONLY, LABELS - 1),
        (Output.LOSS_ONLY, LABELS + 1),
        (Output.LABEL_ARGMAX, LABELS),
    ):
        with pytest.raises(InvalidExamples):
            check_labels(output, labels, 4)


def test_a_loss_is_over_several_different_examples() -> None:
    book = LabelBook()
    book.enter("task", NAMES[:8], LABELS[:8], 8)
    with pytest.raises(PolicyForbids, match="7 different"):
        book.enter("task", [*NAMES[:7], NAMES[0]], np.array([*LABELS[:7], LABELS[0]]), 8)


def test_an_input_keeps_its_label() -> None:
    book = LabelBook()
    book.enter("task", NAMES[:8], LABELS[:8], 8)
    changed = LABELS.copy()
    changed[3] += 1
    with pytest.raises(PolicyForbids, match=r"examples\[3\].label"):
        book.enter("task", NAMES, changed, 8)
    book.enter("task", NAMES, LABELS, 8)  # nothing of the refused handle was entered
    book.enter("other task", NAMES, changed, 8)
    twice = [*NAMES, NAMES[9]]
    with pytest.raises(PolicyForbids, match=r"examples\[10\].label"):
        book.enter("third task", twice, np.array([*LABELS, LABELS[9] + 1]), 8)


def test_what_is_remembered_is_bounded() -> None:
    book = LabelBook(max_rows=8)
    book.enter("task", NAMES[:8], LABELS[:8], 2)
    book.enter("task", NAMES[:8], LABELS[:8], 2)
    with pytest.raises(PolicyForbids, match="more than 8"):
        book.enter("task", NAMES[6:], LABELS[6:], 2)
