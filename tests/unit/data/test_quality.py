"""Warnings about examples: what is found, how it is counted, and that no text is shown."""

import numpy as np
import pytest

from fedbbpt.data.quality import DataWarning, TextReview, cut_texts, review, similar_labels
from fedbbpt.types import Examples, LabelledExamples, Truncation

LABELS = ("visits", "billing")


def part(*texts: str, labels: list[int] | None = None, pairs: tuple[str, ...] | None = None) -> LabelledExamples:
    return LabelledExamples(Examples(texts, pairs), np.array(labels or [0] * len(texts), np.int64))


def found(**parts: LabelledExamples) -> dict[str, DataWarning]:
    return {warning.kind: warning for warning in review(parts, LABELS)}


def test_clean_data_gets_no_warning() -> None:
    assert found(train=part("where to park", "who pays"), dev=part("may I come"), test=part("why this sum?")) == {}


def test_duplicates_across_splits_are_counted_exactly_and_after_normalising() -> None:
    train = part("Where to park?", "who pays", "not twice", "who pays")
    test = part("Where to park?", "WHERE  to\tpark?", "something new")
    warnings = found(train=train, dev=part("who pays"), test=test)
    assert warnings.keys() == {"test examples in train", "dev examples in train"}
    assert warnings["test examples in train"].count == 2
    message = "2 of 3 test examples are also in train, 1 with other spaces or capitals;"
    assert warnings["test examples in train"].message.startswith(message)
    assert "capitals" not in warnings["dev examples in train"].message


def test_pairs_are_duplicates_only_if_both_texts_are() -> None:
    train, test = part("It rains.", pairs=("It is wet.",)), part("It rains.", pairs=("It is dry.",))
    assert found(train=train, test=test) == {}
    assert "test examples in train" in found(train=train, test=train)


def test_images_are_compared_by_their_pixels() -> None:
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    train = LabelledExamples(Examples(images=pixels), np.array([0, 1]))
    other = LabelledExamples(Examples(images=pixels[1:] + 1), np.array([1]))
    assert found(train=train, test=other) == {}
    assert found(train=train, test=train.take(np.array([1])))["test examples in train"].count == 1


def test_one_example_with_two_labels_is_a_conflict() -> None:
    train = part("who pays", "who pays", "Who  pays", "other", labels=[0, 0, 1, 1])
    assert found(train=train)["conflicting labels"].count == 1
    assert found(train=part("who pays", "who pays", labels=[1, 1])) == {}
    across = found(train=part("who pays"), test=part("who pays", labels=[1]))
    assert across["conflicting labels"].count == 1


def test_labels_that_differ_only_in_case_or_spaces_are_named() -> None:
    (warning,) = similar_labels(["Front desk", "front  desk", "billing", "FRONT DESK"])
    assert warning.count == 3 and "'Front desk', 'front  desk', 'FRONT DESK'" in warning.message
    assert similar_labels(["a", "b"]) == []


@pytest.mark.parametrize(
    ("kind", "texts", "count"),
    [
        ("short texts", ["-", "?", "a", "ok", "no, not this"], 3),
        ("lost texts", ["caf\ufffd", "café"], 1),
        ("misread texts", ["CafÃ© zu?", "Café zu?", "Größe", "GrÃ¶ÃŸe", "Ça va à Noël", "naïve ☕"], 2),
    ],
)
def test_odd_texts_are_counted_over_all_parts(kind: str, texts: list[str], count: int) -> None:
    seen = TextReview()
    for text in texts:
        seen.add(Examples((text,)))
    (warning,) = seen.warnings()
    assert (warning.kind, warning.count) == (kind, count)
    assert warning.message.startswith(f"{count} of {len(texts)} texts {'is' if count == 1 else 'are'} ")


def test_cut_texts_say_how_many_and_by_how_much() -> None:
    (warning,) = cut_texts(Truncation(3, 90), 12, 128)
    assert warning.count == 3 and "3 of 12 texts are too long" in warning.message
    assert "128 tokens" in warning.message and "30 tokens on average" in warning.message
    assert cut_texts(Truncation(), 12, 128) == cut_texts(None, 12, 128) == []


def test_no_warning_shows_a_text() -> None:
    texts = ("my knee hurts", "MY knee  hurts", "my knee hurts \ufffd", "my knee hurts Ã©")
    everything = review({"train": part(*texts, labels=[0, 1, 0, 1]), "test": part(*texts)}, LABELS)
    assert len(everything) >= 4 and all("knee" not in warning.message for warning in everything)
