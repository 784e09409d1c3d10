"""A cache of computed scores. Its keys name task, prompt and row; the model is the same for the life of a process."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

OVERHEAD_BYTES = 300
"""Estimated memory of an entry besides its scores."""


class ResultCache:
    """Scores `[K]` of (prompt, example) pairs: at most `max_bytes`, evicting the least recently used."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def keeps(self) -> bool:
        """Whether it keeps anything at all."""
        return self._max_bytes > 0

    def get(self, key: bytes) -> npt.NDArray[np.float32] | None:
        """Returns the cached scores, or None."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return np.frombuffer(found, np.float32)

    def put(self, key: bytes, scores: npt.NDArray[np.float32]) -> None:
        """Caches a copy of the scores, with what is appended to them. A key that is already cached keeps its scores."""
        if key in self._entries:
            return
        self._entries[key] = scores.tobytes()
        self._bytes += scores.nbytes + OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            _, old = self._entries.popitem(last=False)
            self._bytes -= len(old) + OVERHEAD_BYTES
