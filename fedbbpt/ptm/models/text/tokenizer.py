"""Tokenises whole texts, and finds the tokens at which given characters begin.

A token may depend on its neighbours: many tokenizers write the space before a word into its token, and some treat the
first word differently. A filled template is therefore tokenised as one text, as the model's own tokenizer does it, and
its pieces are found by their characters.

Special tokens that a user's text spells out stay plain text. Those of a template are special: `mark` replaces them by
one reserved character each, and a copy of the tokenizer reads these characters as the special tokens.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from tokenizers import AddedToken, Tokenizer

from fedbbpt.errors import InvalidInput
from fedbbpt.limits import MAX_TOKENISED_CHARACTERS

Ids: TypeAlias = tuple[int, ...]

_RESERVED = (
    *range(0xFDD0, 0xFDF0),
    *(plane * 0x10000 + last for plane in range(1, 17) for last in (0xFFFE, 0xFFFF)),
    *range(0xF0000, 0xFFFFE),
)
"""Characters that stand for special tokens: Unicode's noncharacters, which no text contains, then private ones."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text, without the model's own special tokens."""

    ids: Ids
    cuts: tuple[int | None, ...]
    """For each position in the text: the index of the first token at or after it; None if a token lies on both sides
    of it."""
    overlaps: tuple[tuple[int, int], ...]
    """For each position: how many tokens end before it, and how many begin before it."""


@dataclass(frozen=True, slots=True)
class PairForm:
    """How a tokenizer joins two texts in two segments."""

    separator: Ids
    """The special tokens between the texts. They belong to the first segment."""
    first: int
    second: int
    before: Ids
    """Segments of the special tokens before the first text."""
    after: Ids
    """Segments of the special tokens after the second text."""


class TextTokenizer(ABC):
    """One model's tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is one of transformers' tokenizers."""
        self._tokenizer, self._lock = tokenizer, Lock()
        decoder: Mapping[int, Any] = tokenizer.added_tokens_decoder
        special = {str(token): id for id, token in decoder.items() if token.special}
        special |= {text: tokenizer.convert_tokens_to_ids(text) for text in tokenizer.all_special_tokens}
        self._marks = {text: chr(code) for text, code in zip(special, _RESERVED, strict=False)}
        self.special_ids = {self._marks[text]: id for text, id in special.items() if text in self._marks}
        """The id of the special token that each reserved character stands for."""
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.unknown_id: int | None = tokenizer.unk_token_id
        self.mask = self._marks.get(str(tokenizer.mask_token)) if tokenizer.mask_token_id is not None else None
        """The reserved character of the mask token; None if there is none."""
        self.count = len(tokenizer)
        (plain,) = self.encode([("a", ())])
        whole = self.plain_encoding("a")
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain.ids)] == plain.ids), 0)
        self.before, self.after = whole[:start], whole[start + len(plain.ids) :]
        self.pair_form = self._find_pair_form(plain.ids)

    def mark(self, literal: str) -> str:
        """Replaces the special tokens that a template spells out by their reserved characters."""
        return self._spelled.sub(lambda found: self._marks[found[0]], literal)

    def spell(self, marked: str) -> str:
        """Undoes `mark`."""
        spelled = {mark: text for text, mark in self._marks.items()}
        return "".join(spelled.get(character, character) for character in marked)

    def has_marks(self, text: str) -> bool:
        """Tells whether a text contains reserved characters."""
        return not self.special_ids.keys().isdisjoint(text)

    def plain_encoding(self, text: str) -> Ids:
        """Returns the ids that transformers' tokenizer gives for a text, special tokens included."""
        with self._lock:  # a call changes the tokenizer's setting for special tokens
            return tuple(self._tokenizer(text, verbose=False)["input_ids"])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns tokens as the vocabulary spells them, for messages."""
        found: list[str] = self._tokenizer.convert_ids_to_tokens(list(ids))
        return found

    @abstractmethod
    def encode(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Tokens]:
        """Tokenises texts, each with the positions in it that are to be found.

        Raises:
            InvalidInput: The tokenizer does not tell where its tokens are, and they cannot be found otherwise.
        """

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Returns the ids of texts, at most MAX_TOKENISED_CHARACTERS at a time."""
        return [tokens.ids for some in in_batches([(text, ()) for text in texts]) for tokens in self.encode(some)]

    def _find_pair_form(self, plain: Ids) -> PairForm | None:
        """Returns how the tokenizer joins two texts; None if it does not put the second one into a segment of its own.

        Both texts must stand between the special tokens that surround a single text.
        """
        with self._lock:
            pair = self._tokenizer("a", "a", verbose=False)
        ids, segments = tuple(pair["input_ids"]), tuple(pair.get("token_type_ids", ()))
        middle = len(self.before) + len(plain), len(ids) - len(self.after) - len(plain)
        separator = ids[slice(*middle)]
        if not any(segments) or not separator or ids != self.before + plain + separator + plain + self.after:
            return None
        first, second = segments[len(self.before)], segments[middle[1]]
        return PairForm(separator, first, second, segments[: len(self.before)], segments[len(ids) - len(self.after) :])


class FastTokenizer(TextTokenizer):
    """A tokenizer of the library tokenizers, which tells the characters of each token."""

    def __init__(self, tokenizer: Any, backend: Tokenizer) -> None:
        """`backend`: a copy of the tokenizer's part in the library, which is modified."""
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        # It adds special tokens, and some processors take the space before a word out of the word's characters.
        self._backend.post_processor = None
        self._backend.encode_special_tokens = True
        self._ids_of_marks: dict[int, int] = {}
        super().__init__(tokenizer)
        added = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
        tokens = [
            AddedToken(
                mark,
                lstrip=text in added and added[text].lstrip,
                rstrip=text in added and added[text].rstrip,
                single_word=text in added and added[text].single_word,
                normalized=False,
            )
            for text, mark in self._marks.items()
        ]
        self._backend.add_tokens(tokens)
        self._ids_of_marks = {self._backend.token_to_id(mark) or 0: id for mark, id in self.special_ids.items()}

    def encode(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Tokens]:
        encodings = self._backend.encode_batch([text for text, _ in texts], add_special_tokens=False)
        found = []
        for encoding, (text, positions) in zip(encodings, texts, strict=True):
            ids = encoding.ids
            if self.has_marks(text):
                ids = [self._ids_of_marks.get(id, id) for id in ids]
            overlaps = _overlaps(encoding.offsets, positions) if len(positions) else ()
            found.append(Tokens(tuple(ids), tuple(_cut(*overlap) for overlap in overlaps), overlaps))
        return found


def _overlaps(offsets: Sequence[tuple[int, int]], positions: Sequence[int]) -> tuple[tuple[int, int], ...]:
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    ended, begun = np.searchsorted(ends, positions, "right"), np.searchsorted(starts, positions, "left")
    return tuple(zip(ended.tolist(), begun.tolist(), strict=True))


def _cut(ended: int, begun: int) -> int | None:
    return begun if ended >= begun else None  # a token without characters counts as one after the position


class SlowTokenizer(TextTokenizer):
    """A tokenizer in Python, which does not tell where its tokens are.

    A position is found where the text before it, tokenised alone, gives the first tokens of the whole.
    """

    def encode(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Tokens]:
        return [self._encode_one(text, positions) for text, positions in texts]

    def _encode_one(self, text: str, positions: Sequence[int]) -> Tokens:
        ids, overlaps = self._plain(text), []
        for position in positions:
            start = self._plain(text[:position])
            if ids[: len(start)] != start:
                what = f"the tokenizer does not tell which tokens belong to {text[max(0, position - 20) : position]!r}"
                raise InvalidInput(
                    what, where="template", fix="white space around what is inserted, or a fast tokenizer"
                )
            overlaps.append((len(start), len(start)))
        return Tokens(ids, tuple(len_ for len_, _ in overlaps), tuple(overlaps))

    def _plain(self, text: str) -> Ids:
        """Returns the ids of a text, in which reserved characters are special tokens."""
        spelled, has_marks = self._spelled.search(text) is not None, self.has_marks(text)
        if spelled and has_marks:
            what = "a text spells out a special token, and this tokenizer cannot tell it from those of the template"
            raise InvalidInput(what, where="template", fix="a template without special tokens, or a fast tokenizer")
        with self._lock:
            found = self._tokenizer(
                self.spell(text) if has_marks else text,
                add_special_tokens=False,
                split_special_tokens=spelled,
                verbose=False,
            )
        return tuple(found["input_ids"])


def text_tokenizer(tokenizer: Any) -> TextTokenizer:
    """Returns the wrapper for one of transformers' tokenizers."""
    try:
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None
    except Exception:  # the library has no other class for parts in Python, which cannot be copied
        backend = None
    return SlowTokenizer(tokenizer) if backend is None else FastTokenizer(tokenizer, backend)


def in_batches(texts: Sequence[tuple[str, Sequence[int]]]) -> list[Sequence[tuple[str, Sequence[int]]]]:
    """Splits texts into batches of about MAX_TOKENISED_CHARACTERS."""
    batches, start, characters = [], 0, 0
    for end, (text, _) in enumerate(texts, 1):
        characters += len(text)
        if characters >= MAX_TOKENISED_CHARACTERS or end == len(texts):
            batches.append(texts[start:end])
            start, characters = end, 0
    return batches
