"""A template filled with an example, as text, for models that take texts only: what stands around its {prompt}."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedbbpt.errors import PromptTooLong
from fedbbpt.ptm.models.template import Piece, Placeholder


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """`space` stands before a prompt, and nowhere where that is empty."""

    before: str
    space: str
    after: str
    tokens: int

    def text(self, prompt: str) -> str:
        return self.before + (self.space + prompt if prompt else "") + self.after


@dataclass(frozen=True, slots=True)
class TemplateFiller:
    """`count` gives a text's tokens, special ones included."""

    pieces: Sequence[Piece]
    count: Callable[[str], int]

    def fill(self, text: str, pair: str, room: int, index: int) -> FilledTemplate:
        """Of at most `room` tokens: the end of the text is cut off, nothing else.

        It is cut by characters, to the share of its tokens that there is room for, until it fits. Raises PromptTooLong
        where not one character is left.
        """
        row = self._filled(text, pair)
        if row.tokens <= room:
            return row
        fixed = self._filled("", pair).tokens
        while row.tokens > room and fixed < room and len(text) > 1:
            share = (room - fixed) / (row.tokens - fixed)
            text = text[: max(1, min(len(text) - 1, int(len(text) * share)))]
            row = self._filled(text, pair)
        if row.tokens > room:
            raise PromptTooLong(
                "the template, the rest of the input and the prompt leave no room for the text",
                where=f"examples[{index}]",
                fix="fewer prompt tokens, or a shorter template or second text",
            )
        return row

    def _filled(self, text: str, pair: str) -> FilledTemplate:
        slot = next(index for index, piece in enumerate(self.pieces) if piece.placeholder is Placeholder.PROMPT)
        values = {Placeholder.TEXT: text, Placeholder.TEXT_PAIR: pair, None: ""}

        def fill(pieces: Sequence[Piece]) -> str:
            """Without the mask, and the space before it: both are the label's."""
            return "".join(
                piece.text + values[piece.placeholder] for piece in pieces if piece.placeholder is not Placeholder.MASK
            )

        before, after = fill(self.pieces[:slot]), fill(self.pieces[slot + 1 :])
        return FilledTemplate(before, self.pieces[slot].text, after, self.count(before + after))
