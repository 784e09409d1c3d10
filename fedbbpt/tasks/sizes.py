"""How much of what a client asks fits into one call of a PTM service, as its card says."""

from dataclasses import fields
from math import prod

import numpy as np

from fedbbpt.types import ENVELOPE_BYTES, Examples, ModelCard, Prompts

SCORE_BYTES = 4
PICTURE_BYTES = 4
"""Of a pixel's change in a prompt; in an example it is one."""
EXAMPLE_BYTES = 32
"""Of an example beside its texts, at most."""


def examples_of_a_handle(card: ModelCard, examples: Examples) -> int:
    """As many as there may be, if one call has to hold them all, and of pictures a change for each."""
    room = card.max_message_bytes - ENVELOPE_BYTES
    if examples.images is not None:
        most = room // ((PICTURE_BYTES + 1) * prod(examples.images.shape[1:]))
    else:
        both = zip(examples.texts, examples.pairs or ("",) * len(examples), strict=True)
        most = room // 2 // max(EXAMPLE_BYTES + len(text.encode()) + len(pair.encode()) for text, pair in both)
    return max(1, min(card.max_examples, card.max_pairs or most, most))


def prompts_of_a_call(card: ModelCard, one: Prompts, examples: int, classes: int) -> int:
    """As many like `one` as there may be for so many examples of a handle."""
    room = card.max_message_bytes - ENVELOPE_BYTES
    most = min(room // 2 // max(1, size(one)), room // (SCORE_BYTES * examples * classes), card.max_prompts)
    if card.max_pairs:
        most = min(most, card.max_pairs // examples)
    return max(1, most)


def size(prompts: Prompts) -> int:
    """In bytes, but for what is the same for any number of them."""
    values = [getattr(prompts, field.name) for field in fields(prompts)]
    texts = (text for value in values if isinstance(value, tuple) for text in value)
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray)) + sum(len(t.encode()) for t in texts)
