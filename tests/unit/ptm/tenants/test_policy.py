"""Answers under each output policy, and the rules of LOSS_ONLY for handles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, PolicyForbids
from fedbbpt.ptm.tenants.policy import LabelBook, Row, answer, check_labels
from fedbbpt.tasks.criterion import cross_entropy
from fedbbpt.types import Output

SCORES = np.random.default_rng(0).normal(0, 30, (3, 10, 4)).astype(np.float32)
LABELS = np.arange(10) % 4


def test_answers_follow_from_the_scores() -> None:
    assert answer(Output.LABEL_LOGITS, SCORES, None) is SCORES
    logs = answer(Output.LABEL_LOGPROBS, SCORES, None)
    assert logs.dtype == np.float32 and np.allclose(np.exp(logs.astype(np.float64)).sum(axis=2), 1, atol=1e-5)
    assert np.allclose(logs - logs[..., :1], SCORES - SCORES[..., :1], atol=1e-4)
    choices = answer(Output.LABEL_ARGMAX, SCORES, None)
    assert choices.dtype == np.int32 and np.array_equal(choices, logs.argmax(axis=2))
    losses = answer(Output.LOSS_ONLY, SCORES, LABELS)
    assert losses.dtype == np.float64 and np.allclose(losses, cross_entropy(SCORES, LABELS), rtol=1e-12)


def test_labels_are_required_for_losses_and_rejected_otherwise() -> None:
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


def book(**options: Any) -> LabelBook:
    return LabelBook(8, **{"overlaps": False, **options})


def enter(book: LabelBook, rows: Sequence[int], label: str = "a", columns: bytes = b"words") -> None:
    book.enter(columns, [same(row) for row in rows], [label] * len(rows))


def same(number: int) -> Row:
    """Returns a row whose text nobody else has."""
    return Row(bytes([number]), (bytes([number]),))


def test_loss_needs_several_different_examples() -> None:
    enter(book(), range(8))
    with pytest.raises(PolicyForbids, match="7 different"):
        enter(book(), [*range(7), 0])


def test_input_keeps_its_label() -> None:
    labels = book()
    enter(labels, range(8))
    with pytest.raises(PolicyForbids, match=r"examples\[0\].label"):
        enter(labels, [3, *range(8, 20)], "b")
    enter(labels, range(8, 20))  # nothing of the refused handle was entered
    with pytest.raises(PolicyForbids, match=r"examples\[15\].label"):
        book().enter(b"words", [same(row % 8) for row in range(16)], ["a"] * 15 + ["b"])


def test_label_of_another_task_may_differ_only_if_handles_may_overlap() -> None:
    """Kills: other class words, under which known inputs are new and take any label."""
    for overlaps in (True, False):
        labels = book(overlaps=overlaps)
        enter(labels, range(8))
        if overlaps:
            enter(labels, range(8), "b", b"other words")
            continue
        with pytest.raises(PolicyForbids, match=r"examples\[0\].label"):
            enter(labels, range(8), "b", b"other words")
        enter(labels, range(8), "a", b"other words")
        with pytest.raises(PolicyForbids, match="1 new inputs"):
            enter(labels, range(9), "a", b"other words")


def test_inputs_that_were_told_apart_cannot_become_one() -> None:
    labels = book()
    enter(labels, range(16))
    alike = [Row(b"cut", (bytes([number]),)) for number in range(16)]
    with pytest.raises(PolicyForbids, match="from which it was told apart before"):
        labels.enter(b"words", alike, ["a"] * 16)


@pytest.mark.parametrize("overlaps", [True, False])
def test_no_input_dominates_a_loss(overlaps: bool) -> None:
    """Kills: counting different inputs without their frequencies."""
    for rows, weight in (([0] * 9993 + list(range(1, 8)), "1.0"), ([*range(8), 0], "7.4")):
        with pytest.raises(PolicyForbids, match=f"8 different examples that weigh like {weight}"):
            enter(book(overlaps=overlaps), rows)
    enter(book(overlaps=overlaps), [*range(8), *range(8)])


def test_inputs_of_different_weight_are_not_a_group() -> None:
    """Kills: a group that one input dominates once the others are subtracted."""
    many = list(range(20, 60))
    with pytest.raises(PolicyForbids, match="1 new inputs"):
        enter(book(), [*[0] * 5, *many])
    enter(book(overlaps=True), [*[0] * 5, *many])
    enter(book(), [*list(range(8)) * 2, *many])


def test_handles_isolate_no_input() -> None:
    """Kills: comparing handles pair by pair, although a third handle reveals what two share."""
    labels = book()
    enter(labels, range(16))
    enter(labels, range(15, -1, -1))
    for rows, message in (
        (range(15), "15 of 16 known"),
        (range(17), "1 new inputs"),
        ([*range(9), *range(20, 30)], "9 of 16 known"),
        ([*range(16), 0], "an input 2 times"),
    ):
        with pytest.raises(PolicyForbids, match=message):
            enter(labels, rows)
    enter(labels, [*range(8), *range(20, 30)])  # 8, 8 and 10 inputs stay together from now on
    enter(labels, range(20, 30))
    with pytest.raises(PolicyForbids, match="7 of 8 known"):
        enter(labels, range(1, 16))


def test_overlaps_are_allowed_but_labels_stay() -> None:
    labels = book(overlaps=True)
    for rows in (range(8), range(9), [*range(8), 8, 8]):
        enter(labels, rows)
    with pytest.raises(PolicyForbids, match="another label"):
        enter(labels, range(1, 9), "b")


def test_number_of_remembered_inputs_is_limited() -> None:
    labels = book(max_inputs=8)
    enter(labels, range(8))
    enter(labels, range(8))
    with pytest.raises(PolicyForbids, match="more than 8"):
        enter(labels, range(8, 16))
