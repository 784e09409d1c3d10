"""Parsing of templates."""

import pytest

from fedbbpt.errors import InvalidExamples
from fedbbpt.ptm.models.template import Piece, Placeholder, check_pairs, parse
from fedbbpt.types import Examples, TaskSpec


def pieces(template: str) -> list[tuple[str, Placeholder | None]]:
    return [(piece.text, piece.placeholder) for piece in parse(TaskSpec(template, ("a", "b")))]


def test_white_space_belongs_to_the_placeholder_after_it() -> None:
    assert pieces("{prompt} {text} It was {mask}.") == [
        ("", Placeholder.PROMPT),
        (" ", Placeholder.TEXT),
        (" It was", None),
        (" ", Placeholder.MASK),
        (".", None),
    ]


def test_prompt_comes_first_if_the_template_leaves_it_out() -> None:
    assert parse(TaskSpec("Q: {text}", ("a", "b")))[0] == Piece("", Placeholder.PROMPT)


def test_doubled_braces_are_literal_braces() -> None:
    assert pieces("{{x}} {text}") == [("", Placeholder.PROMPT), ("{", None), ("x}", None), (" ", Placeholder.TEXT)]


def test_second_texts_and_their_placeholder_require_each_other() -> None:
    with_pair, without = TaskSpec("{text} {text_pair}", ("a", "b")), TaskSpec("{text}", ("a", "b"))
    check_pairs(with_pair, Examples(("x",), ("y",)))
    for task, examples in ((with_pair, Examples(("x",))), (without, Examples(("x",), ("y",)))):
        with pytest.raises(InvalidExamples, match="second texts"):
            check_pairs(task, examples)
