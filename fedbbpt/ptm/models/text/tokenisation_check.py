"""Verifies at start-up that a filled template becomes the tokens that the tokenizer gives for the whole text."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.types import Examples, TaskSpec

TEXT = "the film was very good"
CLASSES = (("bad", "good"), ("no", "yes"), ("B", "A"))
"""Label words, of which the first pair that the vocabulary has is used."""
MAX_TOKENS = 1000
"""Tokens of a vocabulary among which label words are looked for if it has none of CLASSES."""


def check_tokenisation(name: str, tokenizer: Any, encoder: ExampleEncoder, template: str, *, causal: bool) -> None:
    """Compares the tokens of one filled template, and for causal models those of the words that continue it.

    Args:
        name: The model, for the message.
        tokenizer: The model's own tokenizer.
        encoder: Makes the tokens that the model will read.
        template: A template without {prompt}.
        causal: Whether the text goes on with label words.

    Raises:
        InvalidInput: They differ, or the longest input is shorter than the filled template.
    """
    if "{mask}" in template and not causal and tokenizer.mask_token is None:
        return  # no template can be filled
    filled = template.format(text=TEXT, mask="" if causal else tokenizer.mask_token).rstrip()
    if (classes := _known_classes(tokenizer, encoder, template) if causal else CLASSES[0]) is None:
        return  # no label word can be scored
    task = TaskSpec(template, classes)
    whole = _without_end(tokenizer, filled) if causal else list(tokenizer(filled)["input_ids"])
    (encoded,) = encoder.encode(task, Examples((TEXT,)), 0, None)
    if encoded.cut_tokens:
        what = f"the longest input is too short for the sentence with which the model is tested, {filled!r}"
        raise InvalidInput(what, where=name, fix=f"a longest input (--max-length) of {len(whole)} tokens or more")
    _compare(name, tokenizer, filled, encoded.ids, whole)
    for word, ids in zip(classes, encoder.label_words(task), strict=True) if causal else ():
        text = f"{filled} {word}"
        _compare(name, tokenizer, text, [*whole, *ids], _without_end(tokenizer, text))


def _known_classes(tokenizer: Any, encoder: ExampleEncoder, template: str) -> tuple[str, str] | None:
    """Returns two label words that the vocabulary has; None if it has no two words."""
    tokens = tokenizer.convert_ids_to_tokens(range(min(MAX_TOKENS, len(tokenizer))))
    words = [word for token in tokens if (word := token.lstrip("\u2581\u0120")).isalnum() and word.isascii()]
    for classes in (*CLASSES, *pairwise(words)):
        with suppress(InvalidTask):
            encoder.label_words(TaskSpec(template, classes))
            return classes
    return None


def _compare(name: str, tokenizer: Any, text: str, ours: Sequence[int], theirs: Sequence[int]) -> None:
    if list(ours) != list(theirs):
        read, right = (tokenizer.convert_ids_to_tokens(list(ids)) for ids in (ours, theirs))
        what = f"the template's pieces of {text!r} become the tokens {read}, but its whole text {right}"
        raise InvalidInput(what, where=name, fix="a model with another tokenizer")


def _without_end(tokenizer: Any, text: str) -> list[int]:
    """Returns the tokens of a text with the special tokens before it, but without those after it."""
    ids = list(tokenizer(text)["input_ids"])
    while ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        ids.pop()
    return ids
