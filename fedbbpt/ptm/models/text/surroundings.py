"""Tokenises text prompts next to the characters that surround them in examples.

Most tokenizers read a prompt in the same way wherever it stands. Where they do not, the tokens that the model reads
would depend on both prompt and example; such prompts are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedbbpt.errors import InvalidTensor
from fedbbpt.ptm.models.text.tokenizer import Ids, TextTokenizer

NEARBY = 64
"""Characters on each side of a border that may decide how it is tokenised."""


def head(text: str) -> str:
    """Returns the first characters of a text, which are next to what stands before it."""
    return text[:NEARBY]


def tail(text: str) -> str:
    """Returns the last characters of a text, which are next to what follows it."""
    return text[-NEARBY:]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The characters around a prompt in a filled template, and how an input goes on after a prompt at its end."""

    before: str
    space: str
    """White space whose tokens belong to the prompt."""
    stand_in: str
    """What stood in the prompt's place when the example was tokenised; it may be empty."""
    after: str
    labels: tuple[tuple[str, Ids], ...] = ()
    """Label words, with the white space before them, and their tokens, if these follow the prompt at once."""


def tokenise_prompts(
    tokenizer: TextTokenizer, prompts: Sequence[str], surroundings: Sequence[Surroundings], most: int
) -> list[Ids]:
    """Returns the tokens of each prompt next to all of these surroundings, or alone without any.

    Args:
        tokenizer: The tokenizer.
        prompts: Texts; an empty one has no tokens.
        surroundings: Those of the examples that the prompts are scored with.
        most: Tokens that are kept of each prompt. Longer prompts fit into no input and are not checked further.

    Raises:
        InvalidTensor: A prompt and its surroundings are read together in an example, or otherwise than next to a word.
    """
    if not surroundings:
        return [tokenizer.ids([prompt])[0][:most] for prompt in prompts]
    borders = _Borders(tokenizer, surroundings)
    return [borders.tokenise(prompt, f"text.texts[{index}]", most) for index, prompt in enumerate(prompts)]


class _Borders:
    """The tokens before and after a prompt, without it.

    The texts before and the texts after prompts are checked apart, since no token reaches from one to the other.
    """

    def __init__(self, tokenizer: TextTokenizer, surroundings: Sequence[Surroundings]) -> None:
        self._tokenizer = tokenizer
        self._first = first = surroundings[0]
        starts = list(dict.fromkeys((each.before, each.space) for each in surroundings))
        ends = list(dict.fromkeys(each.after for each in surroundings))
        stand_in = first.stand_in
        before = [(start + space + stand_in + first.after, (len(start),)) for start, space in starts]
        removed = len(first.before) + len(first.space + stand_in if stand_in else "")
        after = [(first.before + first.space + stand_in + end, (removed,)) for end in ends]
        self._before = {
            start: None if tokens.cuts[0] is None else tokens.ids[: tokens.cuts[0]]
            for start, tokens in zip(starts, tokenizer.encode(before), strict=True)
        }
        self._after = {
            end: None if tokens.cuts[0] is None else tokens.ids[tokens.cuts[0] :]
            for end, tokens in zip(ends, tokenizer.encode(after), strict=True)
        }

    def tokenise(self, prompt: str, where: str, most: int) -> Ids:
        """Returns the tokens of one prompt, which an error says to be at `where`."""
        if not prompt:
            return ()
        first = self._first
        before, after = self._before[first.before, first.space], self._after[first.after]
        ids, start, end = self._split(first.before, first.space + prompt, first.after, where)
        if ids[:start] != before:
            raise _read_together(where, first.before, prompt)
        if ids[end:] != after:
            raise _read_together(where, prompt, first.after)
        if end - start > most:
            return ids[start : start + most]
        self._check_starts(head(prompt + first.after), prompt, where)
        self._check_ends(tail(first.before + first.space + prompt), prompt, where)
        return ids[start:end]

    def _check_starts(self, begin: str, prompt: str, where: str) -> None:
        """Checks the first characters of a prompt after all other texts that stand before one."""
        first = self._first
        ids, start, _ = self._split(first.before, first.space + begin, "", where)
        others = [(start, space) for start, space in self._before if (start, space) != (first.before, first.space)]
        found = self._tokenizer.ids([start + space + begin for start, space in others])
        for other, read in zip(others, found, strict=True):
            before = self._before[other]
            if before is None or read != before + ids[start:]:
                raise _read_together(where, other[0], prompt)

    def _check_ends(self, end: str, prompt: str, where: str) -> None:
        """Checks the last characters of a prompt before all other texts that stand after one, and before labels."""
        ids, _, stop = self._split("", end, self._first.after, where)
        others: dict[str, Ids | None] = {
            text: after for text, after in self._after.items() if text != self._first.after
        }
        if not self._first.after:
            others |= dict(self._first.labels)
        for (text, after), read in zip(
            others.items(), self._tokenizer.ids([end + text for text in others]), strict=True
        ):
            if after is None or read != ids[:stop] + after:
                raise _read_together(where, prompt, text)

    def _split(self, before: str, prompt: str, after: str, where: str) -> tuple[Ids, int, int]:
        """Returns the tokens of three texts in a row, and where those of the second one begin and end."""
        positions = len(before), len(before) + len(prompt)
        (tokens,) = self._tokenizer.encode([(before + prompt + after, positions)])
        start, end = tokens.cuts
        if start is None:
            raise _read_together(where, before, prompt)
        if end is None:
            raise _read_together(where, prompt, after)
        return tokens.ids, start, end


def _read_together(where: str, left: str, right: str) -> InvalidTensor:
    what = (
        f"the tokenizer does not read {left[-20:]!r} and {right[:20]!r} apart, so that the prompt's tokens are unclear"
    )
    fix = "white space around {prompt} in the template, and none at the ends of the prompt and of texts"
    return InvalidTensor(what, where=where, fix=fix)
