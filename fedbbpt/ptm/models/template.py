"""Parses a task's template into literal text and the placeholders {prompt}, {text}, {text_pair} and {mask}."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from string import Formatter

from fedbbpt.errors import InvalidExamples, InvalidTask, PromptTooLong
from fedbbpt.types import Examples, TaskSpec


class Placeholder(StrEnum):
    """The names that may stand in braces."""

    PROMPT = "prompt"
    TEXT = "text"
    TEXT_PAIR = "text_pair"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class Piece:
    """A placeholder with the white space before it, or literal text."""

    text: str
    """The white space, or the literal text."""
    placeholder: Placeholder | None


def parse(task: TaskSpec) -> tuple[Piece, ...]:
    """Returns the pieces in order. If the template has no {prompt}, it comes first.

    White space before a placeholder belongs to the placeholder: " great" is one token, " " and "great" are two.

    Raises:
        InvalidTask: The template has no {text}, an unknown or repeated placeholder or a stray brace, or the task has
            fewer than two different classes.
    """
    pieces: list[Piece] = []
    try:
        for literal, name, spec, conversion in Formatter().parse(task.template):
            body = literal.rstrip() if name is not None else literal
            if body:
                pieces.append(Piece(body, None))
            if name is None:
                continue
            if spec or conversion or name not in set(Placeholder):
                raise InvalidTask(
                    f"unknown placeholder {{{name}}}", where="template", fix="{prompt} {text} {text_pair} {mask}"
                )
            pieces.append(Piece(literal[len(body) :], Placeholder(name)))
    except ValueError as error:
        raise InvalidTask(str(error), where="template", fix="write a brace as {{ or }}") from None
    count = Counter(piece.placeholder for piece in pieces if piece.placeholder)
    if count[Placeholder.TEXT] != 1:
        raise InvalidTask(
            "the template has no {text}, or more than one", where="template", fix='for example "{prompt} {text}"'
        )
    for placeholder, times in count.items():
        if times > 1:
            raise InvalidTask(f"{{{placeholder}}} occurs {times} times", where="template", fix="each placeholder once")
    if len(task.classes) < 2 or len(set(task.classes)) < len(task.classes) or not all(map(str.strip, task.classes)):
        raise InvalidTask(f"classes {task.classes!r}", where="classes", fix="two or more different texts")
    return tuple(pieces) if count[Placeholder.PROMPT] else (Piece("", Placeholder.PROMPT), *pieces)


def forbid_mask(pieces: tuple[Piece, ...]) -> None:
    """Raises InvalidTask if the template has a {mask}, for models that fill no masks."""
    if any(piece.placeholder is Placeholder.MASK for piece in pieces):
        raise InvalidTask(
            "the template has a {mask}, but the model fills no masks",
            where="template",
            fix='for example "{prompt} {text}"',
        )


def check_mask_at_end(pieces: tuple[Piece, ...]) -> None:
    """Raises InvalidTask unless the last piece is a {mask}, for models that continue a text with a label word."""
    fix = 'for example "{prompt} {text} Sentiment: {mask}"'
    places = [index for index, piece in enumerate(pieces) if piece.placeholder is Placeholder.MASK]
    if not places:
        what = "the template has no {mask}, which tells where the label word goes on and whether a space is before it"
        raise InvalidTask(what, where="template", fix='end the template with " {mask}", ' + fix)
    if places[0] < len(pieces) - 1:
        raise InvalidTask("{mask} stands before the end, but the model only continues texts", where="template", fix=fix)


def no_room_for_text(row: int) -> PromptTooLong:
    """Returns the error for example number `row`, if not a single token of its text fits."""
    return PromptTooLong(
        "the template, the rest of the input and the prompt leave no room for the text",
        where=f"examples[{row}]",
        fix="fewer prompt tokens, or a shorter template or second text",
    )


def check_pairs(task: TaskSpec, examples: Examples) -> None:
    """Raises InvalidExamples unless the examples have second texts exactly if the template has a {text_pair}."""
    wanted = any(piece.placeholder is Placeholder.TEXT_PAIR for piece in parse(task))
    if wanted and examples.pairs is None:
        raise InvalidExamples(
            "second texts are missing", where="text_pair", fix="the task's template has a {text_pair}"
        )
    if not wanted and examples.pairs is not None:
        raise InvalidExamples(
            "second texts without a place", where="text_pair", fix="the task's template has no {text_pair}"
        )
