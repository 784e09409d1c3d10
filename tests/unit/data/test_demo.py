"""The synthetic questions have the properties that their module states."""

import re

import numpy as np
import pytest

from fedbbpt.data.demo import CONTEXTS, DEV, EVENTS, OPENERS, QUESTIONS, TEST, TRAIN, Demo, questions
from fedbbpt.types import LabelledExamples

STEMS = ("schedul", "wayfind", "bill", "staff", "director", "instruct", "medic", "advi", "house", "rule")


@pytest.fixture(scope="module", params=[0, 1])
def demo(request: pytest.FixtureRequest) -> Demo:
    return questions(request.param)


def splits(demo: Demo) -> tuple[LabelledExamples, LabelledExamples, LabelledExamples]:
    return demo.train, demo.dev, demo.test


def test_no_text_occurs_twice(demo: Demo) -> None:
    texts = [text for split in splits(demo) for text in split.examples.texts]
    assert len({text.lower() for text in texts}) == len(texts) == 980


def test_no_text_names_a_class(demo: Demo) -> None:
    assert all(any(word.startswith(stem) for stem in STEMS) for label in demo.labels for word in label.split())
    for split in splits(demo):
        for text in split.examples.texts:
            assert not [stem for stem in STEMS if stem in text.lower()], text


def test_classes_are_equally_frequent_in_every_split(demo: Demo) -> None:
    for split, each in zip(splits(demo), (TRAIN, DEV, TEST), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), np.full(len(QUESTIONS), each))


def test_a_seed_determines_the_data_set() -> None:
    assert questions(0).train.examples == questions(0).train.examples != questions(1).train.examples


def test_no_question_occurs_again_in_another_context(demo: Demo) -> None:
    """Kills: a test question that is a training question with another opener."""
    cores = []
    for split in splits(demo):
        for text in split.examples.texts:
            for part in (*OPENERS, *CONTEXTS):
                text = text.removeprefix(f"{part} ")
            cores.append(text)
    assert len(set(cores)) == len(cores)


def test_the_topic_does_not_give_the_class_away(demo: Demo) -> None:
    """Every class asks about every examination."""
    texts, labels = demo.train.examples.texts, demo.train.labels
    seen = {(event, int(label)) for text, label in zip(texts, labels, strict=True) for event in EVENTS if event in text}
    assert len(seen) > 0.9 * len(EVENTS) * len(QUESTIONS)


def test_every_text_is_complete(demo: Demo) -> None:
    for split in splits(demo):
        for text in split.examples.texts:
            assert re.fullmatch(r"[A-Z][^{}\[\]]+[.?!]", text) and "  " not in text, text


def test_every_wording_belongs_to_one_class() -> None:
    wordings = [wording for of_class in QUESTIONS.values() for wording in of_class]
    assert len(set(wordings)) == len(wordings)
