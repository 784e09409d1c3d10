"""A cache of embeddings, which models that compare the embeddings of two sides keep from call to call."""

from collections import OrderedDict, deque
from threading import Lock
from typing import TypeAlias
from weakref import ref

import numpy as np
import numpy.typing as npt

from fedbbpt.limits import MAX_EMBEDDINGS_BYTES

Vectors: TypeAlias = npt.NDArray[np.float32]
_Key: TypeAlias = tuple[int, bytes]

ENTRY_BYTES = 400
"""Estimated memory of an entry besides its numbers."""


class EmbeddingCache:
    """Embeddings by an owner, which is a prepared example or a task, and a key. Thread-safe.

    At most `max_bytes` are kept; the least recently used are evicted first. Owners are distinguished by identity and
    not by content, as in `text.key_value_cache`: two tenants with equal examples share nothing, so that neither the
    time nor the tokens of a call tell one of them about the other. They are held by weak references: when an owner is
    dropped, so are its embeddings.
    """

    def __init__(self, max_bytes: int = MAX_EMBEDDINGS_BYTES) -> None:
        self._max_bytes, self._bytes, self._lock = max_bytes, 0, Lock()
        self._entries: OrderedDict[_Key, tuple[ref[object], Vectors]] = OrderedDict()  # least recently used first
        self._dead: deque[tuple[_Key, ref[object]]] = deque()  # owners are collected at any moment, even under the lock

    def get(self, owner: object, key: bytes = b"") -> Vectors | None:
        """Returns the embeddings that were put under the owner and the key, or None."""
        place = id(owner), key
        with self._lock:
            found = self._entries.get(place)
            if found is None or found[0]() is not owner:  # another object can have the number of a dead one
                return None
            self._entries.move_to_end(place)
            return found[1]

    def put(self, owner: object, vectors: Vectors, key: bytes = b"") -> None:
        """Keeps a copy of embeddings."""
        place = id(owner), key
        with self._lock:
            while self._dead:
                dead, reference = self._dead.popleft()
                if dead in self._entries and self._entries[dead][0] is reference:
                    self._drop(dead)
            if place in self._entries:
                self._drop(place)
            self._entries[place] = ref(owner, lambda dead: self._dead.append((place, dead))), vectors.copy()
            self._bytes += vectors.nbytes + ENTRY_BYTES
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, place: _Key) -> None:
        _, vectors = self._entries.pop(place)
        self._bytes -= vectors.nbytes + ENTRY_BYTES
