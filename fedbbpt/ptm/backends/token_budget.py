"""How large micro-batches should be on a device that tells it to nobody."""

from collections.abc import Callable

import torch

MOST_TOKENS = 2**20
GAIN = 1.1
"""By what doubling has to be faster, in tokens per second."""


def find_token_budget(seconds: Callable[[int], float], *, first: int) -> int:
    """Doubles `first` until that gains less than 10 %, or memory ends: then half of what there was room for.

    `seconds` says how long a micro-batch of so many tokens takes, and raises torch.OutOfMemoryError.
    """
    best, rate = first, first / seconds(first)
    while best < MOST_TOKENS:
        try:
            doubled = 2 * best / seconds(2 * best)
        except torch.OutOfMemoryError:
            return max(first, best // 2)
        if doubled < GAIN * rate:
            return best
        best, rate = 2 * best, doubled
    return best
