"""A prefix of keys and values as transformers' models take it."""

from torch import Tensor
from transformers import DynamicCache


def prefix_cache(prefix: Tensor, count: int) -> DynamicCache:
    """Returns a cache with the prefix `[layers, 2, heads, L, width]` for each of `count` sequences."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(prefix.unbind(0)):
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
    return cache
