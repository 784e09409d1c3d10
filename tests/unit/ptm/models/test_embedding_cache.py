"""Embeddings are kept for the object that they were put under, as long as it lives and there is room."""

import gc

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.models.embedding_cache import ENTRY_BYTES, EmbeddingCache


class Example:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # images cannot be hashed either


def vector(value: float) -> npt.NDArray[np.float32]:
    return np.full(4, value, np.float32)


def test_equal_examples_share_nothing() -> None:
    """Kills: a cache by content, from which a tenant learns what others have asked."""
    cache, one, other = EmbeddingCache(), Example(), Example()
    cache.put(one, vector(1))
    assert cache.get(other) is None
    found = cache.get(one)
    assert found is not None and np.array_equal(found, vector(1))
    assert cache.get(one, b"another prompt") is None


def test_embeddings_are_forgotten_with_their_example() -> None:
    """Kills: a new object that has the number of a dead one, and a dead one that is counted for ever."""
    cache = EmbeddingCache(3 * (16 + ENTRY_BYTES))
    for round in range(100):
        example = Example()
        assert cache.get(example) is None
        cache.put(example, vector(round))
        del example
        gc.collect()
    kept = [Example() for _ in range(3)]
    for one in kept:
        cache.put(one, vector(1))
    assert all(cache.get(one) is not None for one in kept)


def test_the_least_recently_used_embeddings_are_evicted() -> None:
    cache, examples = EmbeddingCache(2 * (16 + ENTRY_BYTES)), [Example() for _ in range(3)]
    cache.put(examples[0], vector(0))
    cache.put(examples[1], vector(1))
    cache.get(examples[0])
    cache.put(examples[2], vector(2))
    assert [cache.get(one) is not None for one in examples] == [True, False, True]


def test_later_changes_of_the_array_do_not_reach_the_cache() -> None:
    cache, example, own = EmbeddingCache(), Example(), vector(1)
    cache.put(example, own)
    own[:] = 2
    found = cache.get(example)
    assert found is not None and np.array_equal(found, vector(1))
