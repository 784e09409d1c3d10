"""Fills a template with an example and tokenises it, once per example, and notes where a prompt can join the tokens.

Each piece of the template is tokenised by itself. An example's text can therefore be truncated and perturbed without
touching the rest, and special tokens spelled out in a text stay plain text, whereas in the template they are special.
A SentencePiece tokenizer begins each piece with its space symbol, even where the template has no space. All tokens form
one segment (token type 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from fedbbpt import seeds
from fedbbpt.errors import InvalidExamples, InvalidTask
from fedbbpt.limits import MAX_TOKENISED_CHARACTERS
from fedbbpt.ptm.models.template import Piece, Placeholder, check_pairs, parse
from fedbbpt.ptm.models.text.key_value_cache import CacheSlot
from fedbbpt.ptm.models.text.truncation import perturb, truncate
from fedbbpt.types import Examples, Perturbation, TaskSpec


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """A filled template in tokens, without its prompt."""

    ids: tuple[int, ...]
    front_index: int
    """Index at which a prompt of vectors joins: after the first special token, the model's or the template's, if there
    is one, otherwise at the front."""
    prompt_index: int
    """Index at which a prompt of tokens or text joins: that of the template's {prompt}."""
    mask_index: int | None
    """Index of the mask token, if there is one."""
    text_index: int
    """Index of the first token of the example's own text."""
    segments: tuple[int, ...] = ()
    """The segment of each token (transformers' `token_type_ids`); empty if all are in segment 0."""
    cut_tokens: int = field(default=0, compare=False)
    """Number of tokens that were cut off from the text."""
    cache_slot: CacheSlot = field(default_factory=CacheSlot, compare=False, repr=False)
    """Holds the keys and values of the tokens before the prompt, for causal models."""


class ExampleEncoder:
    """Turns examples into tokens for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, max_tokens: int, *, causal: bool = False) -> None:
        """`causal`: the input ends without a mask token and without the model's last special token."""
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
        """Returns token ids without the model's own special tokens.

        `special`: special tokens that are spelled out in a text become special tokens, rather than plain text.
        """
        if not texts:
            return []
        with self._lock:  # a call changes the tokenizer's setting for special tokens
            found = self._tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=not special, verbose=False
            )
        return [list(ids) for ids in found["input_ids"]]

    def tokenise_bounded(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenises texts of any length, and keeps at most one token more of each than the model takes."""
        found: list[list[int]] = []
        start, characters = 0, 0
        for end, text in enumerate(texts, 1):
            characters += len(text)
            if characters >= MAX_TOKENISED_CHARACTERS or end == len(texts):
                found += [ids[: self._max_tokens + 1] for ids in self.tokenise(texts[start:end])]
                start, characters = end, 0
        return found

    def encode_text(self, text: str) -> list[int]:
        """Returns the token ids of a text alone, between the model's special tokens."""
        return [*self._before, *self.tokenise([text])[0], *self._after]

    def _label_words(self, task: TaskSpec) -> tuple[tuple[int, ...], ...]:
        """Returns the tokens of each label word, with the white space that the template has before {mask}.

        Raises:
            InvalidTask: A word is not in the vocabulary, two words have the same tokens, or a word has several tokens
                and the model is not causal, so that there is one mask to fill.
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
        """Tokenises examples, and cuts off the ends of texts that leave no room for a prompt of `prompt_tokens`.

        Nothing but the first text of an example is ever cut.

        Raises:
            InvalidExamples: A text has no tokens, or examples and template do not agree on second texts.
            PromptTooLong: There is no room for a single token of a text.
        """
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
                raise InvalidExamples("the text has no tokens", where=f"examples[{index}]", fix="leave the example out")
            whole = len(text)
            text = truncate(text, self._max_tokens - prompt_tokens - fixed - len(pair), index)
            if perturbation is not None:
                rng = seeds.rng(perturbation.seed, "perturbation", index)
                text = perturb(text, perturbation, rng, self._vocabulary)
                pair = perturb(pair, perturbation, rng, self._vocabulary)
            row = self._assemble(pieces, {**literals, **_by_piece(pieces, text, pair)})
            rows.append(replace(row, cut_tokens=whole - len(text)))
        return rows

    def _literal(self, piece: Piece) -> list[int]:
        if piece.placeholder is Placeholder.MASK:
            return self._mask
        return self.tokenise([piece.text], special=True)[0]

    def _assemble(self, pieces: Sequence[Piece], tokens: dict[Piece, list[int]]) -> TokenisedExample:
        ids, prompt_index, mask_index, text_indices = list(self._before), 0, None, []
        for piece in pieces:
            if piece.placeholder is Placeholder.PROMPT:
                prompt_index = len(ids)
            elif piece.placeholder is Placeholder.MASK and self._mask:
                mask_index = len(ids)
            elif piece.placeholder in (Placeholder.TEXT, Placeholder.TEXT_PAIR):
                text_indices.append(len(ids))
            ids += tokens.get(piece, [])
        ids += self._after
        front_index = int(bool(self._before) or ids[0] in self._special)
        return TokenisedExample(tuple(ids), front_index, prompt_index, mask_index, text_indices[0])


def _by_piece(pieces: Sequence[Piece], text: list[int], pair: list[int]) -> dict[Piece, list[int]]:
    tokens = {Placeholder.TEXT: text, Placeholder.TEXT_PAIR: pair}
    return {piece: tokens[piece.placeholder] for piece in pieces if piece.placeholder in tokens}
