"""Groups the pairs of P prompts and B rows into micro-batches of equal length, which need no padding and no mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import PromptTooLong
from fedbbpt.types import MicroBatch, Scores


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """Implements `interfaces.ScoringJob`."""

    batches: tuple[MicroBatch, ...]
    run: Callable[[MicroBatch], Scores]
    """Computes the scores `[N, K]` of a micro-batch."""


def pair_lengths(
    prompt_lengths: npt.ArrayLike, row_lengths: npt.ArrayLike, wanted: npt.NDArray[np.bool_], *, max_tokens: int
) -> npt.NDArray[np.int64]:
    """Returns the tokens of each pair `[P, B]`.

    Raises:
        PromptTooLong: A wanted pair exceeds `max_tokens`.
    """
    of_prompts, of_rows = np.asarray(prompt_lengths, np.int64), np.asarray(row_lengths, np.int64)
    totals = np.add.outer(of_prompts, of_rows)
    if (totals * wanted).max(initial=0) > max_tokens:
        prompt, row = divmod(int((totals * wanted).argmax()), len(of_rows))
        raise PromptTooLong(
            f"{of_prompts[prompt]} prompt tokens and {of_rows[row]} input tokens",
            where=f"prompts[{prompt}], examples[{row}]",
            fix=f"at most {max_tokens} together; register the examples with room for the prompt",
        )
    return totals


def plan(
    prompt_lengths: Sequence[int],
    row_lengths: Sequence[int],
    wanted: npt.NDArray[np.bool_],
    *,
    max_tokens: int,
    token_budget: int,
    shared: npt.NDArray[np.int64] | None = None,
    suffix: int = 0,
) -> tuple[MicroBatch, ...]:
    """Returns micro-batches that contain every wanted pair once, the shortest pairs first.

    All pairs of a micro-batch have the same length, and the same shared length. The plan depends on the arguments
    alone, so the same request is always computed in the same shapes.

    Args:
        prompt_lengths: Tokens of each prompt `[P]`.
        row_lengths: Tokens of each row `[B]`.
        wanted: The pairs to compute `[P, B]`.
        max_tokens: Longest pair that the model takes.
        token_budget: Most tokens in a micro-batch; a single pair may exceed it.
        shared: Tokens of each pair that are computed elsewhere, as a prefix `[P, B]`; None for none.
        suffix: Tokens that are computed after each pair in addition.

    Raises:
        PromptTooLong: A wanted pair exceeds `max_tokens`.
    """
    totals = pair_lengths(prompt_lengths, row_lengths, wanted, max_tokens=max_tokens)
    prefixes = np.zeros_like(totals) if shared is None else shared
    batches: list[MicroBatch] = []
    for length, prefix in np.unique(np.stack([totals[wanted], prefixes[wanted]], axis=1), axis=0).tolist():
        rows, prompts = np.nonzero(
            (wanted & (totals == length) & (prefixes == prefix)).T
        )  # pairs of a row are adjacent
        tokens = length - prefix + suffix
        # Parts of nearly equal size, because a small remainder would use the model inefficiently.
        parts = -(-len(rows) // max(1, token_budget // max(1, tokens)))
        batches += [
            MicroBatch(p, r, tokens * len(r))
            for p, r in zip(np.array_split(prompts, parts), np.array_split(rows, parts), strict=True)
        ]
    return tuple(batches)
