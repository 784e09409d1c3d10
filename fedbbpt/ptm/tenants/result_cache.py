"""Scores that were computed before, by task, prompt and row; the model's revision is the process's own.

Each tenant has a cache of its own: what is in it, and how soon an answer comes, tells nobody what others have asked.
"""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

OVERHEAD_BYTES = 300
"""Of Python, for each entry."""


class ResultCache:
    """The scores `[K]` of pairs, at most `max_bytes` of them; what was used least recently gives way."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> npt.NDArray[np.float32] | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return np.frombuffer(found, np.float32)

    def put(self, key: bytes, scores: npt.NDArray[np.float32]) -> None:
        if key in self._entries:
            return
        self._entries[key] = scores.tobytes()
        self._bytes += scores.nbytes + OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            _, old = self._entries.popitem(last=False)
            self._bytes -= len(old) + OVERHEAD_BYTES
