"""Truncation and perturbation of an example's tokens, before a prompt joins them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.models.template import no_room_for_text
from fedbbpt.types import Perturbation

S = TypeVar("S", bound=Sequence[int])


def truncate(text: S, room: int, row: int) -> S:
    """Returns the first `room` tokens of the text of example number `row`.

    Raises:
        PromptTooLong: There is no room for a single token.
    """
    if room < 1:
        raise no_room_for_text(row)
    return text[:room]  # type: ignore[return-value]  # the slice of a list is a list, that of a range a range


def perturb(
    tokens: Sequence[int], perturbation: Perturbation, rng: np.random.Generator, vocabulary: npt.NDArray[np.int64]
) -> list[int]:
    """Replaces a fraction `rate` of the tokens by random ones: x~ = x m + x^ (1 - m) with a random mask m.

    FedBPT (arXiv 2310.01467), equation 7. `vocabulary` holds the ids to draw x^ from.
    """
    perturbed = np.array(tokens, np.int64)
    places = rng.permutation(len(tokens))[: round(perturbation.rate * len(tokens))]
    perturbed[places] = rng.choice(vocabulary, len(places))
    return [int(token) for token in perturbed]
