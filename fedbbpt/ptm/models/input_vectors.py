"""A cache of the embeddings of inputs, which models that compare embeddings keep from call to call."""

from collections import OrderedDict, deque
from threading import Lock
from weakref import ref

import numpy as np
import numpy.typing as npt

from fedbbpt.limits import MAX_INPUT_VECTORS_BYTES

Vector = npt.NDArray[np.float32]

ENTRY_BYTES = 300
"""Estimated memory of an entry besides its numbers."""


class InputVectors:
    """The embedding `[E]` of each prepared example: at most `max_bytes`, evicting the least recently used. Thread-safe.

    Examples are distinguished by identity and not by content, as in `text.key_value_cache`: two tenants with equal
    examples share nothing, so that neither the time nor the tokens of a call tell one of them about the other. They are
    held by weak references: when an example is dropped, so is its embedding.
    """

    def __init__(self, max_bytes: int = MAX_INPUT_VECTORS_BYTES) -> None:
        self._max_bytes, self._bytes, self._lock = max_bytes, 0, Lock()
        self._entries: OrderedDict[int, tuple[ref[object], Vector]] = OrderedDict()  # least recently used first
        self._dead: deque[tuple[int, ref[object]]] = (
            deque()
        )  # examples are collected at any moment, even under the lock

    def get(self, example: object) -> Vector | None:
        """Returns the embedding of an example, or None."""
        with self._lock:
            found = self._entries.get(id(example))
            if found is None or found[0]() is not example:  # a dead example's id can be that of another one
                return None
            self._entries.move_to_end(id(example))
            return found[1]

    def put(self, example: object, vector: Vector) -> None:
        """Keeps a copy of the embedding of an example."""
        number = id(example)
        with self._lock:
            while self._dead:
                dead, reference = self._dead.popleft()
                if dead in self._entries and self._entries[dead][0] is reference:
                    self._drop(dead)
            if number in self._entries:
                self._drop(number)
            self._entries[number] = ref(example, lambda dead: self._dead.append((number, dead))), vector.copy()
            self._bytes += vector.nbytes + ENTRY_BYTES
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, number: int) -> None:
        _, vector = self._entries.pop(number)
        self._bytes -= vector.nbytes + ENTRY_BYTES
