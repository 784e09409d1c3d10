"""P prompts x B rows as micro-batches of pairs of equal length: no padding, hence no attention mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import PromptTooLong
from fedbbpt.types import MicroBatch, Scores


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """Implements interfaces.Job: the micro-batches, and what computes the scores `[N, K]` of one."""

    batches: tuple[MicroBatch, ...]
    run: Callable[[MicroBatch], Scores]


def plan(
    prompt_lengths: Sequence[int],
    row_lengths: Sequence[int],
    wanted: npt.NDArray[np.bool_],
    *,
    max_tokens: int,
    token_budget: int,
    shared: npt.NDArray[np.int64] | None = None,
    behind: int = 0,
) -> tuple[MicroBatch, ...]:
    """Every wanted `[P, B]` pair once, in micro-batches of at most `token_budget` tokens (or of one pair), short ones
    first.

    Of a pair, `shared` `[P, B]` tokens are computed elsewhere, and `behind` more stand behind it. Pairs of one
    micro-batch are equal in length, and in the shared part of it. A pure function of its arguments, so that the same
    request always takes the same shapes. Raises PromptTooLong where a wanted pair exceeds `max_tokens`.
    """
    totals = np.add.outer(np.asarray(prompt_lengths, np.int64), np.asarray(row_lengths, np.int64))  # [P, B]
    if (totals * wanted).max(initial=0) > max_tokens:
        prompt, row = divmod(int((totals * wanted).argmax()), len(row_lengths))
        raise PromptTooLong(
            f"{prompt_lengths[prompt]} prompt tokens and {row_lengths[row]} input tokens",
            where=f"prompts[{prompt}], examples[{row}]",
            fix=f"at most {max_tokens} together; register the examples with room for the prompt",
        )
    known = np.zeros_like(totals) if shared is None else shared
    batches: list[MicroBatch] = []
    for length, begun in np.unique(np.stack([totals[wanted], known[wanted]], axis=1), axis=0).tolist():
        rows, prompts = np.nonzero((wanted & (totals == length) & (known == begun)).T)  # a row's pairs together
        tokens = length - begun + behind
        # Parts of nearly equal size: a small remainder would be slow for its tokens.
        parts = -(-len(rows) // max(1, token_budget // max(1, tokens)))
        batches += [
            MicroBatch(p, r, tokens * len(r))
            for p, r in zip(np.array_split(prompts, parts), np.array_split(rows, parts), strict=True)
        ]
    return tuple(batches)
