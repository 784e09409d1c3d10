"""How large micro-batches should be on a device that tells it to nobody."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fedbbpt.errors import Overloaded
from fedbbpt.types import MicroBatch, Scores

MAX_BUDGET = 2**20
MIN_SPEEDUP = 1.01
"""By what doubling has to be faster, in tokens per second."""


def find_token_budget(seconds: Callable[[int], float], *, first: int) -> int:
    """Doubles `first` until that gains less than 1 %, or memory ends: then half of what there was room for.

    `seconds` says how long a micro-batch of so many tokens takes, and raises torch.OutOfMemoryError.
    """
    best, rate = first, first / seconds(first)
    while best < MAX_BUDGET:
        try:
            doubled = 2 * best / seconds(2 * best)
        except torch.OutOfMemoryError:
            return max(first, best // 2)
        if doubled < MIN_SPEEDUP * rate:
            return best
        best, rate = 2 * best, doubled
    return best


def split_on_out_of_memory(run: Callable[[MicroBatch], Scores]) -> Callable[[MicroBatch], Scores]:
    """Runs a micro-batch, and where memory ends its halves, one after the other.

    How much there is can change at any time, as others use the device. Raises Overloaded where one pair has no room.
    """

    def run_in_halves(batch: MicroBatch) -> Scores:
        try:
            return run(batch)
        except torch.OutOfMemoryError:
            if len(batch.rows) == 1:
                fix = "try again; fewer tokens in a pair"
                raise Overloaded("the device has no memory for one pair", where="device", fix=fix) from None
        half = len(batch.rows) // 2
        torch.cuda.empty_cache()
        return np.concatenate(
            [run_in_halves(_slice(batch, slice(half))), run_in_halves(_slice(batch, slice(half, None)))]
        )

    return run_in_halves


def _slice(batch: MicroBatch, part: slice) -> MicroBatch:
    return replace(batch, prompts=batch.prompts[part], rows=batch.rows[part])
