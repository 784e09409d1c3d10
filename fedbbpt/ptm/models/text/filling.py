"""Fills a task's template with an example as text, and notes where its parts are.

An input is prepared before its prompt is known. Where the template has white space, punctuation or an end on both sides
of {prompt}, a stand-in word takes the prompt's place, so that the rest is tokenised as next to any prompt (" film" with
its space), and the stand-in's tokens are removed later. Where letters of the template or a text stand right next to
{prompt}, nothing takes its place, since any word would become one word with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.template import Piece, Placeholder, parse
from fedbbpt.ptm.models.text.tokenizer import PairForm, TextTokenizer
from fedbbpt.types import TaskSpec

STAND_INS = "a", "x", "it", "the", "one", "1", "A"
"""Words that may take the place of a prompt or a text, of which a vocabulary has some."""


@dataclass(frozen=True, slots=True)
class Span:
    """The characters that one placeholder takes in a filled template."""

    space: int
    """Start of the white space before it."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A filled template, in which special tokens are reserved characters."""

    text: str
    prompt: Span
    """The span of the prompt's stand-in, or of the prompt."""
    example: Span
    """The span of the example's text."""
    pair: Span | None
    mask: Span | None
    separator_end: int | None
    """Position after the separator between the two texts, for models that read them as two segments."""

    @property
    def prompt_starts(self) -> tuple[int, int, int]:
        """Positions at which the prompt's tokens may begin, the best one first.

        White space before a prompt is usually part of its first token. Some tokenizers join it with further white
        space before it, others with the punctuation that precedes it.
        """
        before = self.text[: self.prompt.space]
        return self.prompt.space, len(before.rstrip()), self.prompt.start

    @property
    def positions(self) -> tuple[int, ...]:
        """All positions whose tokens are of interest."""
        spans = [self.example, *(span for span in (self.pair, self.mask) if span is not None)]
        found = {
            *self.prompt_starts,
            self.prompt.end,
            *(at for span in spans for at in (span.space, span.start, span.end)),
        }
        return tuple(sorted(found | ({self.separator_end} if self.separator_end is not None else set())))


class Template:
    """The template of one task, for one tokenizer."""

    def __init__(self, tokenizer: TextTokenizer, task: TaskSpec, *, causal: bool) -> None:
        """`causal`: the input ends before {mask}, and before the white space in front of it.

        Raises:
            InvalidTask: The template has a {mask}, but the tokenizer has no mask token.
        """
        self._tokenizer = tokenizer
        pieces = parse(task)
        self.space_before_label = next((piece.text for piece in pieces if piece.placeholder is Placeholder.MASK), "")
        """White space between the input and a label word."""
        if causal:
            pieces = tuple(piece for piece in pieces if piece.placeholder is not Placeholder.MASK)
        elif tokenizer.mask is None and any(piece.placeholder is Placeholder.MASK for piece in pieces):
            raise InvalidTask(
                "the template has a {mask}, but the model's tokenizer has no mask token",
                where="template",
                fix="a checkpoint whose tokenizer_config.json names its mask_token",
            )
        self._pieces = tuple(
            piece if piece.placeholder else Piece(tokenizer.mark(piece.text), None) for piece in pieces
        )
        self.last = self._pieces[-1].placeholder
        """The placeholder with which the input ends; None if it is literal text."""
        self._separator = _separator(self._pieces, tokenizer.pair_form, tokenizer)
        known = _known_words(tokenizer)
        self.word = known[0]
        """A word that stands for a text."""
        self.stand_in = ""
        """What takes the place of a prompt: a word, or nothing."""
        if _names_prompt(task) and self._stands_apart():
            self.stand_in = next((word for word in known if self._is_separate(word)), "")

    def fill(self, text: str, pair: str, *, prompt: str | None = None, mask: str | None = None) -> Filled:
        """Fills the template; without a prompt, with its stand-in, and without a text for the mask, with its token."""
        values = {
            Placeholder.PROMPT: self.stand_in if prompt is None else prompt,
            Placeholder.TEXT: text,
            Placeholder.TEXT_PAIR: pair,
            Placeholder.MASK: (self._tokenizer.mask or "") if mask is None else mask,
        }
        written: list[str] = []
        spans: dict[Placeholder, Span] = {}
        position, separator_end = 0, None
        for index, piece in enumerate(self._pieces):
            inserted = values[piece.placeholder] if piece.placeholder else ""
            start = position + len(piece.text)
            if piece.placeholder:
                spans[piece.placeholder] = Span(position, start, start + len(inserted))
            if self._separator is not None and self._separator[0] == index:
                separator_end = position + self._separator[1]
            written += [piece.text, inserted]
            position = start + len(inserted)
        return Filled(
            "".join(written),
            spans[Placeholder.PROMPT],
            spans[Placeholder.TEXT],
            spans.get(Placeholder.TEXT_PAIR),
            spans.get(Placeholder.MASK),
            separator_end,
        )

    def _is_separate(self, word: str) -> bool:
        """Tells whether no token of the filled template contains a part of a prompt and of its neighbours."""
        filled = self.fill(self.word, self.word, prompt=word)
        (tokens,) = self._tokenizer.encode([(filled.text, (filled.prompt.space, filled.prompt.end))])
        return None not in tokens.cuts

    def _stands_apart(self) -> bool:
        """Tells whether no letter and no text stands right next to {prompt}."""
        index = next(i for i, piece in enumerate(self._pieces) if piece.placeholder is Placeholder.PROMPT)
        before, after = self._pieces[:index][-1:], self._pieces[index + 1 :][:1]
        apart_before = bool(self._pieces[index].text) or all(_ends_word(piece) for piece in before)
        return apart_before and all(_begins_no_word(piece) for piece in after)


def _names_prompt(task: TaskSpec) -> bool:
    """Tells whether the template says where a prompt is; otherwise its beginning is read as without any prompt."""
    return any(name == Placeholder.PROMPT for _, name, _, _ in Formatter().parse(task.template))


def _ends_word(piece: Piece) -> bool:
    """Tells whether a piece ends with a character that no word contains."""
    if piece.placeholder is not None:
        return piece.placeholder is Placeholder.MASK
    return not piece.text[-1].isalnum()


def _begins_no_word(piece: Piece) -> bool:
    """Tells whether a piece begins with a character that no word contains."""
    return not piece.text[0].isalnum() if piece.text else piece.placeholder is Placeholder.MASK


def _known_words(tokenizer: TextTokenizer) -> Sequence[str]:
    """Returns the stand-ins that the vocabulary has, or all if it has none."""
    known = zip(STAND_INS, tokenizer.ids([f"a {word} a" for word in STAND_INS]), strict=True)
    return [word for word, ids in known if tokenizer.unknown_id not in ids] or STAND_INS


def _separator(pieces: Sequence[Piece], form: PairForm | None, tokenizer: TextTokenizer) -> tuple[int, int] | None:
    """Returns the piece, and the position in it, after which the second segment begins; None if there is one segment.

    All special tokens that the template has between the two texts must be those that the tokenizer puts there.
    """
    texts = [i for i, piece in enumerate(pieces) if piece.placeholder in (Placeholder.TEXT, Placeholder.TEXT_PAIR)]
    if form is None or len(texts) != 2:
        return None
    found = [
        (index, position)
        for index in range(texts[0] + 1, texts[1])
        for position, character in enumerate(pieces[index].text)
        if character in tokenizer.special_ids
    ]
    if tuple(tokenizer.special_ids[pieces[index].text[position]] for index, position in found) != form.separator:
        return None
    index, position = found[-1]
    return index, position + 1
