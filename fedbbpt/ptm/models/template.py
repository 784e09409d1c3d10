"""A task's template, taken apart at its places {prompt}, {text}, {text_pair} and {mask}."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from string import Formatter

from fedbbpt.errors import InvalidExamples, InvalidTask
from fedbbpt.types import Examples, TaskSpec


class Placeholder(StrEnum):
    PROMPT = "prompt"
    TEXT = "text"
    TEXT_PAIR = "text_pair"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class Piece:
    """A place with the white space that stands before it, or (place None) literal text."""

    text: str
    placeholder: Placeholder | None


def parse(task: TaskSpec) -> tuple[Piece, ...]:
    """The pieces in order; {prompt} is among them, first where the template leaves it out.

    White space before a place belongs to the place: " great" is one token where " " and "great" are two. Raises
    InvalidTask for what no model could score.
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
                    f"unknown place {{{name}}}", where="template", fix="{prompt} {text} {text_pair} {mask}"
                )
            pieces.append(Piece(literal[len(body) :], Placeholder(name)))
    except ValueError as error:
        raise InvalidTask(str(error), where="template", fix="write a brace as {{ or }}") from None
    count = Counter(piece.placeholder for piece in pieces if piece.placeholder)
    if count[Placeholder.TEXT] != 1:
        raise InvalidTask("no {text}, or more than one", where="template", fix='for example "{prompt} {text}"')
    for place, times in count.items():
        if times > 1:
            raise InvalidTask(f"{times} times {{{place}}}", where="template", fix="each place once")
    if len(task.classes) < 2 or len(set(task.classes)) < len(task.classes) or not all(map(str.strip, task.classes)):
        raise InvalidTask(f"classes {task.classes!r}", where="classes", fix="two or more different texts")
    return tuple(pieces) if count[Placeholder.PROMPT] else (Piece("", Placeholder.PROMPT), *pieces)


def forbid_mask(pieces: tuple[Piece, ...]) -> None:
    """Raises InvalidTask where the template has a {mask} and the model none."""
    if any(piece.placeholder is Placeholder.MASK for piece in pieces):
        raise InvalidTask("{mask}, but the model fills no masks", where="template", fix='for example "{prompt} {text}"')


def check_pairs(task: TaskSpec, examples: Examples) -> None:
    """Raises InvalidExamples where the template has a {text_pair} and the examples none, or the other way round."""
    wanted = any(piece.placeholder is Placeholder.TEXT_PAIR for piece in parse(task))
    if wanted and examples.pairs is None:
        raise InvalidExamples("no second texts", where="text_pair", fix="the task's template has a {text_pair}")
    if not wanted and examples.pairs is not None:
        raise InvalidExamples("second texts", where="text_pair", fix="the task's template has no {text_pair}")
