"""The numbers of examples and prompts that fit into one call of a PTM service, by its card."""

from math import prod

from fedbbpt.limits import ENVELOPE_BYTES
from fedbbpt.types.examples import Examples, TaskSpec
from fedbbpt.types.prompts import Prompts
from fedbbpt.types.ptm import ModelCard

SCORE_BYTES = 4
PIXEL_BYTES, DELTA_BYTES = 1, 4
"""A pixel of an example, and its change by a prompt."""
EXAMPLE_BYTES = 32
"""More than an example holds besides its texts."""
CLASS_BYTES = 8
"""More than a class holds besides its text."""


def examples_per_handle(card: ModelCard, task: TaskSpec, examples: Examples) -> int:
    """Returns how many such examples of a task one handle may hold, at least 1.

    One message must be able to hold all of them inline with their task, and, for images, a picture for each of them.
    Another must be able to hold the scores of one prompt.
    """
    texts = sum(CLASS_BYTES + len(text.encode()) for text in (task.template, *task.classes))
    room = card.max_message_bytes - ENVELOPE_BYTES - texts
    if examples.image_shape is not None:
        most = room // ((PIXEL_BYTES + DELTA_BYTES) * prod(examples.image_shape))
    else:
        longest = max(len(text.encode()) + len(pair.encode()) for text, pair in examples.text_pairs)
        most = room // 2 // (EXAMPLE_BYTES + longest)
    scored = (card.max_message_bytes - ENVELOPE_BYTES) // (SCORE_BYTES * len(task.classes))
    return max(1, min(card.max_examples, card.max_pairs or most, most, scored))


def prompts_per_call(card: ModelCard, one: Prompts, examples: int, classes: int) -> int:
    """Returns how many prompts like `one` fit into a call with a handle of so many examples, at least 1."""
    room = card.max_message_bytes - ENVELOPE_BYTES
    most = min(room // 2 // max(1, one.size_bytes), room // (SCORE_BYTES * examples * classes), card.max_prompts)
    if card.max_pairs:
        most = min(most, card.max_pairs // examples)
    return max(1, most)
