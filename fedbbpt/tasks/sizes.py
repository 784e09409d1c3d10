"""The number of examples and prompts that fit into one call of a PTM service, by the limits of its model card."""

from dataclasses import fields
from math import prod

import numpy as np

from fedbbpt.types import ENVELOPE_BYTES, Examples, ModelCard, Prompts

SCORE_BYTES = 4
"""Bytes of one score in an answer."""
DELTA_BYTES = 4
"""Bytes of one pixel's change in a visual prompt; a pixel of an example takes one byte."""
EXAMPLE_BYTES = 32
"""The most bytes that an example takes in a message in addition to its texts."""


def examples_of_a_handle(card: ModelCard, examples: Examples) -> int:
    """Returns the largest number of examples that may be registered under one handle, at least 1.

    All of them must fit into one message. Images must also leave room for a prompt with a change of each image.
    """
    room = card.max_message_bytes - ENVELOPE_BYTES
    if examples.images is not None:
        most = room // ((DELTA_BYTES + 1) * prod(examples.images.shape[1:]))
    else:
        both = zip(examples.texts, examples.pairs or ("",) * len(examples), strict=True)
        most = room // 2 // max(EXAMPLE_BYTES + len(text.encode()) + len(pair.encode()) for text, pair in both)
    return max(1, min(card.max_examples, card.max_pairs or most, most))


def prompts_of_a_call(card: ModelCard, one: Prompts, examples: int, classes: int) -> int:
    """Returns the largest number of prompts that fit into one call, at least 1.

    Args:
        card: the limits of the service.
        one: one prompt of the kind and size that will be sent.
        examples: the number of examples under the handle.
        classes: K, the number of scores of each pair.
    """
    room = card.max_message_bytes - ENVELOPE_BYTES
    most = min(room // 2 // max(1, size(one)), room // (SCORE_BYTES * examples * classes), card.max_prompts)
    if card.max_pairs:
        most = min(most, card.max_pairs // examples)
    return max(1, most)


def size(prompts: Prompts) -> int:
    """Returns the bytes of the prompts' own arrays and texts, without parts that do not grow with their number."""
    values = [getattr(prompts, field.name) for field in fields(prompts)]
    texts = (text for value in values if isinstance(value, tuple) for text in value)
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray)) + sum(len(t.encode()) for t in texts)
