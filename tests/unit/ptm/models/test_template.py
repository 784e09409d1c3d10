"""Templates and their pieces."""

import pytest

from fedbbpt.errors import InvalidExamples
from fedbbpt.ptm.models.template import Piece, Place, check_pairs, parse
from fedbbpt.types import Examples, TaskSpec


def pieces(template: str) -> list[tuple[str, Place | None]]:
    return [(piece.text, piece.place) for piece in parse(TaskSpec(template, ("a", "b")))]


def test_white_space_belongs_to_the_place_behind_it() -> None:
    assert pieces("{prompt} {text} It was {mask}.") == [
        ("", Place.PROMPT),
        (" ", Place.TEXT),
        (" It was", None),
        (" ", Place.MASK),
        (".", None),
    ]


def test_the_prompt_stands_first_where_it_is_left_out() -> None:
    assert parse(TaskSpec("Q: {text}", ("a", "b")))[0] == Piece("", Place.PROMPT)


def test_braces_can_be_written() -> None:
    assert pieces("{{x}} {text}") == [("", Place.PROMPT), ("{", None), ("x}", None), (" ", Place.TEXT)]


def test_second_texts_and_their_place_come_together() -> None:
    with_pair, without = TaskSpec("{text} {text_pair}", ("a", "b")), TaskSpec("{text}", ("a", "b"))
    check_pairs(with_pair, Examples(("x",), ("y",)))
    for task, examples in ((with_pair, Examples(("x",))), (without, Examples(("x",), ("y",)))):
        with pytest.raises(InvalidExamples, match="second texts"):
            check_pairs(task, examples)
