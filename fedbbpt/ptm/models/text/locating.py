"""Finds the tokens of a prompt, the texts and the mask among those of a filled template."""

from dataclasses import dataclass

from fedbbpt.ptm.models.text.filling import Filled, Span
from fedbbpt.ptm.models.text.surroundings import Surroundings, head, tail
from fedbbpt.ptm.models.text.tokenizer import Ids, Tokens


@dataclass(frozen=True, slots=True)
class Places:
    """Indices of tokens in a filled template."""

    prompt: slice | None
    """The prompt's stand-in; empty if there is none. None if one of its tokens also belongs to a neighbour."""
    text: slice
    """The tokens that belong to the example's text alone."""
    text_index: int
    """The first token that belongs to the text, at least in part."""
    has_text: bool
    """Whether any token does."""
    pair: slice | None
    mask: int | None
    second_segment: int | None
    """The first token of the second segment."""
    surroundings: Surroundings


def locate(filled: Filled, tokens: Tokens, stand_in: str, labels: tuple[tuple[str, Ids], ...]) -> Places:
    """Finds the tokens of each part of a filled template.

    Args:
        filled: The filled template.
        tokens: Its tokens.
        stand_in: What stands in the place of the prompt.
        labels: See `Surroundings`.
    """
    cuts = dict(zip(filled.positions, tokens.cuts, strict=True))
    overlaps = dict(zip(filled.positions, tokens.overlaps, strict=True))

    def alone(span: Span) -> slice:
        """Returns the tokens that have no characters outside the span."""
        start, end = cuts[span.space], cuts[span.end]
        return slice(overlaps[span.space][1] if start is None else start, overlaps[span.end][0] if end is None else end)

    def touched(span: Span) -> slice:
        """Returns the tokens that have characters of the span."""
        start, end = cuts[span.space], cuts[span.end]
        return slice(overlaps[span.space][0] if start is None else start, overlaps[span.end][1] if end is None else end)

    start = next((at for at in filled.prompt_starts if cuts[at] is not None), filled.prompt.space)
    first, last = cuts[start], cuts[filled.prompt.end if stand_in else start]
    prompt = None if first is None or last is None else slice(first, last)
    text, any_of_text = alone(filled.example), touched(filled.example)
    if prompt is not None and text.start < prompt.start < text.stop:  # white space at the text's end is the prompt's
        text = slice(text.start, prompt.start)
    return Places(
        prompt,
        text,
        any_of_text.start,
        any_of_text.stop > any_of_text.start,
        None if filled.pair is None else alone(filled.pair),
        None if filled.mask is None else overlaps[filled.mask.start][0],
        None if filled.separator_end is None else cuts[filled.separator_end],
        Surroundings(
            tail(filled.text[:start]),
            filled.text[start : filled.prompt.start],
            stand_in,
            head(filled.text[filled.prompt.end :]),
            labels,
        ),
    )
