"""A template and an example as token ids, once per example, with the places where a prompt can join them.

Each piece of the template is tokenised by itself, so that an example's text can be cut and perturbed without touching
the rest, and special tokens spelled out in a text stay plain text; in the template they are special. A SentencePiece
tokenizer gives each piece its sign for a space, also where the template has none. All is one segment (token type 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from fedbbpt import seeds
from fedbbpt.errors import InvalidExamples, InvalidTask
from fedbbpt.ptm.models.template import Piece, Placeholder, check_pairs, parse
from fedbbpt.ptm.models.text.key_value_cache import CacheSlot
from fedbbpt.ptm.models.text.truncation import perturb, truncate
from fedbbpt.types import Examples, Perturbation, TaskSpec


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """A tokenised example without its prompt.

    Vectors join before `ids[front]`, behind the first special token where there is one, be it the model's own or the
    template's; tokens and text join before `ids[slot]`, where the template has its {prompt}. `mask` is the index of the
    mask token, where there is one; `text` that of the first token of the example's own. Causal models keep what they
    have read of a row in `beginning`.
    """

    ids: tuple[int, ...]
    front_index: int
    prompt_index: int
    mask_index: int | None
    text_index: int
    cache_slot: CacheSlot = field(default_factory=CacheSlot, compare=False, repr=False)


TOKENISED_CHARACTERS = 2**20
"""At a time: a tokenizer takes some hundred bytes for each token, and a message holds many of one character."""


class ExampleEncoder:
    """Turns examples into rows for one tokenizer. For several threads at once."""

    def __init__(self, tokenizer: Any, max_tokens: int, *, causal: bool = False) -> None:
        """`causal`: nothing stands behind the input, neither a mask token nor the model's last special token."""
        self._tokenizer, self._lock = tokenizer, Lock()
        self._max_tokens = max_tokens
        self._causal = causal
        plain = self.tokenise(["a"])[0]
        whole = list(tokenizer("a")["input_ids"])
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self._before, self._after = whole[:start], [] if causal else whole[start + len(plain) :]
        self._mask = [] if causal or tokenizer.mask_token_id is None else [tokenizer.mask_token_id]
        self._special = frozenset(tokenizer.all_special_ids)
        self.label_words = lru_cache(maxsize=64)(self._label_words)
        self._vocabulary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)

    def tokenise(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Token ids without the model's own special tokens; `special` reads those spelled out as what they are."""
        if not texts:
            return []
        with self._lock:  # what it does with special tokens is a setting of the tokenizer itself
            found = self._tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=not special, verbose=False
            )
        return [list(ids) for ids in found["input_ids"]]

    def tokenise_bounded(self, texts: Sequence[str]) -> list[list[int]]:
        """Of texts that callers choose: of each one token more than the model takes, at most."""
        found: list[list[int]] = []
        begun, characters = 0, 0
        for end, text in enumerate(texts, 1):
            characters += len(text)
            if characters >= TOKENISED_CHARACTERS or end == len(texts):
                found += [ids[: self._max_tokens + 1] for ids in self.tokenise(texts[begun:end])]
                begun, characters = end, 0
        return found

    def encode_text(self, text: str) -> list[int]:
        """A text alone, between the model's special tokens."""
        return [*self._before, *self.tokenise([text])[0], *self._after]

    def _label_words(self, task: TaskSpec) -> tuple[tuple[int, ...], ...]:
        """The tokens of each label word, as it stands in the template: with the white space before {mask}.

        Raises InvalidTask for words that the vocabulary lacks, words that fall together, and words of several tokens
        where there is one mask to fill.
        """
        space = next((piece.text for piece in parse(task) if piece.placeholder is Placeholder.MASK), "")
        words = [tuple(tokens) for tokens in self.tokenise([space + word for word in task.classes])]
        for text, tokens in zip(task.classes, words, strict=True):
            if not tokens or self._tokenizer.unk_token_id in tokens or (len(tokens) > 1 and not self._causal):
                pieces = self._tokenizer.convert_ids_to_tokens(tokens)
                fix = "words that the vocabulary has" if self._causal else "words of one token each"
                raise InvalidTask(f"label word {text!r} is {pieces} to the model", where="classes", fix=fix)
        if len(set(words)) < len(words):
            raise InvalidTask("two label words are the same tokens", where="classes", fix="different words")
        return tuple(words)

    def encode(
        self,
        task: TaskSpec,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None,
    ) -> list[TokenisedExample]:
        """Texts lose their ends where they leave no room for the rest and `prompt_tokens`; nothing else is ever cut."""
        check_pairs(task, examples)
        pieces = parse(task)
        spaces = {piece.placeholder: piece.text for piece in pieces if piece.placeholder}
        texts = self.tokenise_bounded([spaces[Placeholder.TEXT] + text for text in examples.texts])
        pairs = self.tokenise_bounded([spaces.get(Placeholder.TEXT_PAIR, "") + text for text in examples.pairs or ()])
        literals = {piece: self._literal(piece) for piece in pieces if piece.placeholder in (None, Placeholder.MASK)}
        fixed = len(self._before) + len(self._after) + sum(len(literals.get(piece, [])) for piece in pieces)
        rows = []
        for index, text in enumerate(texts):
            pair = pairs[index] if pairs else []
            if not text:
                raise InvalidExamples("a text without tokens", where=f"examples[{index}]", fix="leave the example out")
            text = truncate(text, self._max_tokens - prompt_tokens - fixed - len(pair), index)
            if perturbation is not None:
                rng = seeds.rng(perturbation.seed, "perturbation", index)
                text = perturb(text, perturbation, rng, self._vocabulary)
                pair = perturb(pair, perturbation, rng, self._vocabulary)
            rows.append(self._assemble(pieces, {**literals, **_places(pieces, text, pair)}))
        return rows

    def _literal(self, piece: Piece) -> list[int]:
        if piece.placeholder is Placeholder.MASK:
            return self._mask
        return self.tokenise([piece.text], special=True)[0]

    def _assemble(self, pieces: Sequence[Piece], tokens: dict[Piece, list[int]]) -> TokenisedExample:
        ids, slot, mask, own = list(self._before), 0, None, []
        for piece in pieces:
            if piece.placeholder is Placeholder.PROMPT:
                slot = len(ids)
            elif piece.placeholder is Placeholder.MASK and self._mask:
                mask = len(ids)
            elif piece.placeholder in (Placeholder.TEXT, Placeholder.TEXT_PAIR):
                own.append(len(ids))
            ids += tokens.get(piece, [])
        ids += self._after
        return TokenisedExample(tuple(ids), int(bool(self._before) or ids[0] in self._special), slot, mask, own[0])


def _places(pieces: Sequence[Piece], text: list[int], pair: list[int]) -> dict[Piece, list[int]]:
    tokens = {Placeholder.TEXT: text, Placeholder.TEXT_PAIR: pair}
    return {piece: tokens[piece.placeholder] for piece in pieces if piece.placeholder in tokens}
