"""The lists of general columns: what every model may be asked to score."""

import pytest

from fedbbpt.tasks.general_columns import GENERAL_PHRASES, GENERAL_WORDS
from fedbbpt.types import TaskSpec


@pytest.mark.parametrize("texts", [GENERAL_WORDS, GENERAL_PHRASES])
def test_each_list_can_be_the_classes_of_a_task(texts: tuple[str, ...]) -> None:
    TaskSpec("{prompt} {text}", texts).check()


def test_words_are_single_lower_case_words_of_ascii_letters() -> None:
    assert [word for word in GENERAL_WORDS if not (word.isascii() and word.isalpha() and word.islower())] == []
