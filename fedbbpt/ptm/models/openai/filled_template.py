"""Fills a template with an example, as text, for models that take text only. The prompt is inserted later."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedbbpt.ptm.models.template import Piece, Placeholder, no_room_for_text


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """The text before and after the template's {prompt}."""

    before: str
    space: str
    """White space before the prompt; it is left out with an empty prompt."""
    after: str
    tokens: int
    """Tokens of the text without a prompt."""
    prompt_first: bool
    """Whether the prompt stands before the example."""
    cut_tokens: int = 0
    """Number of tokens that were cut off from the text."""

    def text(self, prompt: str) -> str:
        """Returns the whole text with a prompt."""
        return self.before + (self.space + prompt if prompt else "") + self.after

    def messages(self, prompt: str) -> tuple[str, str]:
        """Returns the text with a prompt as a system message, which may be empty, and a user's message.

        The system message ends with the prompt. It is empty if the prompt stands after the example.
        """
        if not self.prompt_first:
            return "", self.text(prompt).strip()
        return (self.before + self.space + prompt).strip(), self.after.strip()


@dataclass(frozen=True, slots=True)
class TemplateFiller:
    """Fills one template."""

    pieces: Sequence[Piece]
    count: Callable[[str], int]
    """Returns the number of tokens of a text, including special ones."""

    def fill(self, text: str, pair: str, room: int, index: int) -> FilledTemplate:
        """Fills the template with a text and its second text, and cuts the text's end off if it exceeds `room` tokens.

        The text is cut by characters, each time to the share of its tokens that fits, until it fits. `index` is the
        number of the example.

        Raises:
            PromptTooLong: There is no room for a single character of the text.
        """
        row = self._filled(text, pair)
        if row.tokens <= room:
            return row
        whole, fixed = row.tokens, self._filled("", pair).tokens
        while row.tokens > room and fixed < room and len(text) > 1:
            share = (room - fixed) / (row.tokens - fixed)
            text = text[: max(1, min(len(text) - 1, int(len(text) * share)))]
            row = self._filled(text, pair)
        if row.tokens > room:
            raise no_room_for_text(index)
        return replace(row, cut_tokens=whole - row.tokens)

    def _filled(self, text: str, pair: str) -> FilledTemplate:
        prompt_index = next(index for index, piece in enumerate(self.pieces) if piece.placeholder is Placeholder.PROMPT)
        values = {Placeholder.TEXT: text, Placeholder.TEXT_PAIR: pair, None: ""}

        def fill(pieces: Sequence[Piece]) -> str:
            """Leaves out the mask and the white space before it, which belong to the label word."""
            return "".join(
                piece.text + values[piece.placeholder] for piece in pieces if piece.placeholder is not Placeholder.MASK
            )

        before, after = fill(self.pieces[:prompt_index]), fill(self.pieces[prompt_index + 1 :])
        first = all(piece.placeholder is None for piece in self.pieces[:prompt_index])
        return FilledTemplate(before, self.pieces[prompt_index].text, after, self.count(before + after), first)
