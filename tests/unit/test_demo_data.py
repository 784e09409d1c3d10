"""The made questions keep what their module promises."""

import re

import numpy as np
import pytest

from fedbbpt.data.demo import DEPARTMENTS, OPENERS, QUESTIONS, THANKS, Demo, questions
from fedbbpt.types import LabelledExamples

STEMS = tuple(re.sub(r"(ing|ions|ion|y|s)$", "", department) for department in DEPARTMENTS)


@pytest.fixture(scope="module", params=[0, 1])
def demo(request: pytest.FixtureRequest) -> Demo:
    return questions(request.param)


def splits(demo: Demo) -> tuple[LabelledExamples, LabelledExamples, LabelledExamples]:
    return demo.train, demo.dev, demo.test


def test_no_text_is_there_twice(demo: Demo) -> None:
    texts = [text for split in splits(demo) for text in split.examples.texts]
    assert len({text.lower() for text in texts}) == len(texts) == 840


def test_no_text_names_a_department(demo: Demo) -> None:
    assert STEMS == ("schedul", "bill", "pharmac", "laborator", "record", "nurs", "admiss", "recept")
    for split in splits(demo):
        for text in split.examples.texts:
            assert not [stem for stem in STEMS if stem in text.lower()], text


def test_classes_are_equally_frequent_in_every_split(demo: Demo) -> None:
    for split, each in zip(splits(demo), (40, 25, 40), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), np.full(len(DEPARTMENTS), each))


def test_a_seed_gives_one_data_set() -> None:
    assert questions(0).train.examples == questions(0).train.examples != questions(1).train.examples


def test_no_question_comes_again_under_another_greeting(demo: Demo) -> None:
    """So no test question is a training question with a hello before it."""
    cores = []
    for split in splits(demo):
        for text in split.examples.texts:
            for greeting in (*OPENERS, *THANKS):
                text = text.removeprefix(f"{greeting} ").removesuffix(f" {greeting}")
            cores.append(text)
    assert len(set(cores)) == len(cores)


def test_every_text_is_written_out(demo: Demo) -> None:
    for split in splits(demo):
        for text in split.examples.texts:
            assert re.fullmatch(r"[A-Z][^{}\[\]]+[.?!]", text) and "  " not in text, text


def test_every_wording_stands_for_one_department() -> None:
    wordings = [wording for of_class in QUESTIONS.values() for wording in of_class]
    assert len(set(wordings)) == len(wordings) and QUESTIONS.keys() == DEPARTMENTS.keys()
