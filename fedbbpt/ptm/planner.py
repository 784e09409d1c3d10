"""P prompts x B rows as micro-batches of pairs of equal length: no padding, hence no attention mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import PromptTooLong


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """N pairs of `length` tokens each: prompt `prompts[i]` with row `rows[i]`, both `[N]`."""

    length: int
    prompts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        return self.length * len(self.rows)


def plan(
    prompt_lengths: Sequence[int], row_lengths: Sequence[int], *, max_tokens: int, token_budget: int
) -> tuple[MicroBatch, ...]:
    """Every pair once, in micro-batches of at most `token_budget` tokens (or of one pair), short ones first.

    A pure function of its arguments, so that the same request always takes the same shapes. Raises PromptTooLong where
    a pair exceeds `max_tokens`.
    """
    totals = np.add.outer(np.asarray(prompt_lengths, np.int64), np.asarray(row_lengths, np.int64))  # [P, B]
    if totals.max(initial=0) > max_tokens:
        prompt, row = divmod(int(totals.argmax()), len(row_lengths))
        raise PromptTooLong(
            f"{prompt_lengths[prompt]} prompt tokens and {row_lengths[row]} input tokens",
            where=f"prompts[{prompt}], examples[{row}]",
            fix=f"at most {max_tokens} together; register the examples with room for the prompt",
        )
    batches: list[MicroBatch] = []
    for length in np.unique(totals):
        prompts, rows = np.nonzero(totals == length)
        # Parts of nearly equal size: a small remainder would be slow for its tokens.
        parts = -(-len(rows) // max(1, token_budget // max(1, int(length))))
        batches += [
            MicroBatch(int(length), p, r)
            for p, r in zip(np.array_split(prompts, parts), np.array_split(rows, parts), strict=True)
        ]
    return tuple(batches)
