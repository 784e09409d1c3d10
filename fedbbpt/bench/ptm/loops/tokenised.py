"""Turns a task's template and texts into token ids, with a tokenizer alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from fedbbpt.types import TaskSpec


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """A text in its task's template, without a prompt."""

    ids: tuple[int, ...]
    prefix_at: int
    """A prefix prompt is inserted before this index: after the model's first special token, if there is one."""
    place_at: int
    """A prompt at the template's {prompt} is inserted before this index."""
    mask_at: int | None
    """Index of the mask token, None without one."""


class Tokeniser:
    """Tokenises each piece of a template by itself.

    WordPiece and byte-level tokenizers give the tokens of the whole, which the service reads. Causal models get neither
    a mask token nor the special tokens that end an input.
    """

    def __init__(self, tokenizer: Any, *, causal: bool) -> None:
        """`tokenizer` is one of transformers' tokenizers."""
        self._tokenizer = tokenizer
        whole, word = list(tokenizer("a")["input_ids"]), self._ids("a")
        start = next(i for i in range(len(whole)) if whole[i : i + len(word)] == word)
        self._start, self._end = whole[:start], [] if causal else whole[start + len(word) :]
        self._mask = [] if causal or tokenizer.mask_token_id is None else [tokenizer.mask_token_id]

    def class_words(self, task: TaskSpec) -> list[int]:
        """Returns the first token of each class word, as it follows the white space before {mask}."""
        space = next((_split(literal)[1] for literal, name, *_ in _pieces(task) if name == "mask"), "")
        return [self._ids(space + word)[0] for word in task.classes]

    def sentence(self, text: str) -> list[int]:
        """Returns the ids of a text between the model's special tokens."""
        return [*self._start, *self._ids(text), *self._end]

    def texts(self, task: TaskSpec, texts: Sequence[str]) -> list[TokenisedText]:
        """Returns the texts in the task's template. Nothing is truncated."""
        return [self._text(task, text) for text in texts]

    def _text(self, task: TaskSpec, text: str) -> TokenisedText:
        ids, place_at, mask_at = list(self._start), len(self._start), None
        for literal, name, *_ in _pieces(task):
            words, space = _split(literal) if name else (literal, "")
            ids += self._ids(words) if words else []
            if name == "prompt":
                place_at = len(ids)
            elif name == "mask" and self._mask:
                mask_at = len(ids)
                ids += self._mask
            elif name == "text":
                ids += self._ids(space + text)
        return TokenisedText((*ids, *self._end), int(bool(self._start)), place_at, mask_at)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _pieces(task: TaskSpec) -> list[tuple[str, str | None, str | None, str | None]]:
    return list(Formatter().parse(task.template))


def _split(literal: str) -> tuple[str, str]:
    """Separates the white space before a place, which belongs to the token that fills the place."""
    words = literal.rstrip()
    return words, literal[len(words) :]
