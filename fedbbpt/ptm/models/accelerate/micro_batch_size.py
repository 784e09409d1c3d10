"""Finds the size of micro-batches that is fastest on a device, and splits those that exceed its memory."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fedbbpt.errors import Overloaded
from fedbbpt.types import MicroBatch, Scores

MAX_MEASURED_TOKENS = 2**20
"""Tokens of the largest micro-batch that is measured."""
MIN_SPEEDUP = 1.01
"""Least gain in tokens per second for which the size is doubled."""


def find_token_budget(seconds: Callable[[int], float], *, first: int) -> int:
    """Returns the number of tokens at which doubling the micro-batch gains less than 1 %, starting at `first`.

    If memory is full before, returns half of the largest size that fitted, to leave room for other calls.

    Args:
        seconds: Measures a micro-batch of a number of tokens; may raise torch.OutOfMemoryError.
        first: The least number of tokens, which must fit.
    """
    best, rate = first, first / seconds(first)
    while best < MAX_MEASURED_TOKENS:
        try:
            doubled = 2 * best / seconds(2 * best)
        except torch.OutOfMemoryError:
            return max(first, best // 2)
        if doubled < MIN_SPEEDUP * rate:
            return best
        best, rate = 2 * best, doubled
    return best


def split_on_out_of_memory(run: Callable[[MicroBatch], Scores]) -> Callable[[MicroBatch], Scores]:
    """Wraps `run` so that it computes a micro-batch that does not fit into memory in halves, one after the other.

    Free memory can change at any time, as other processes use the device. The wrapped function raises Overloaded if a
    single pair does not fit.
    """

    def run_in_halves(batch: MicroBatch) -> Scores:
        try:
            return run(batch)
        except torch.OutOfMemoryError:
            if len(batch.rows) == 1:
                fix = "try again later, or use fewer tokens in a pair"
                raise Overloaded("the device has no memory for a single pair", where="device", fix=fix) from None
        half = len(batch.rows) // 2
        torch.cuda.empty_cache()
        return np.concatenate(
            [run_in_halves(_slice(batch, slice(half))), run_in_halves(_slice(batch, slice(half, None)))]
        )

    return run_in_halves


def _slice(batch: MicroBatch, part: slice) -> MicroBatch:
    return replace(batch, prompts=batch.prompts[part], rows=batch.rows[part])
