"""The result cache returns the cached bits until the entry is evicted."""

import numpy as np

from fedbbpt.ptm.tenants.result_cache import OVERHEAD_BYTES, ResultCache


def row(value: float) -> np.ndarray:
    return np.array([value, -value], np.float32)


def test_least_recently_used_entry_is_evicted() -> None:
    cache = ResultCache(2 * (row(0).nbytes + OVERHEAD_BYTES))
    cache.put(b"a", row(0.1))
    cache.put(b"b", row(0.2))
    assert cache.get(b"a") is not None
    cache.put(b"c", row(0.3))
    assert cache.get(b"b") is None
    for key, value in ((b"a", 0.1), (b"c", 0.3)):
        found = cache.get(key)
        assert found is not None and np.array_equal(found, row(value))


def test_cache_of_no_size_keeps_nothing() -> None:
    cache = ResultCache(0)
    cache.put(b"a", row(0.1))
    assert cache.get(b"a") is None
