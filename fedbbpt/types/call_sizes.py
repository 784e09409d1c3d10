"""The numbers of examples and prompts that fit into one call of a PTM service, by its card."""

from math import prod

from fedbbpt.limits import ENVELOPE_BYTES
from fedbbpt.types.examples import Examples
from fedbbpt.types.prompts import Prompts
from fedbbpt.types.ptm import ModelCard

SCORE_BYTES = 4
PIXEL_BYTES, DELTA_BYTES = 1, 4
"""A pixel of an example, and its change by a prompt."""
EXAMPLE_BYTES = 32
"""More than an example holds besides its texts."""


def examples_per_handle(card: ModelCard, examples: Examples) -> int:
    """Returns how many such examples one handle may hold, at least 1.

    One message must be able to hold all of them inline, and, for images, a picture for each of them.
    """
    room = card.max_message_bytes - ENVELOPE_BYTES
    if examples.image_shape is not None:
        most = room // ((PIXEL_BYTES + DELTA_BYTES) * prod(examples.image_shape))
    else:
        longest = max(len(text.encode()) + len(pair.encode()) for text, pair in examples.text_pairs)
        most = room // 2 // (EXAMPLE_BYTES + longest)
    return max(1, min(card.max_examples, card.max_pairs or most, most))


def prompts_per_call(card: ModelCard, one: Prompts, examples: int, classes: int) -> int:
    """Returns how many prompts like `one` fit into a call with a handle of so many examples, at least 1."""
    room = card.max_message_bytes - ENVELOPE_BYTES
    most = min(room // 2 // max(1, one.size_bytes), room // (SCORE_BYTES * examples * classes), card.max_prompts)
    if card.max_pairs:
        most = min(most, card.max_pairs // examples)
    return max(1, most)
