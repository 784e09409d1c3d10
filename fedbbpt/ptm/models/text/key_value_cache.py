"""What several pairs begin with is read once; what a row begins with is kept from job to job, while there is room."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from weakref import ref

from torch import Tensor

from fedbbpt.ptm.models.text.key_values import KeyValues, byte_count


class CacheSlot:
    """What pairs begin with, and its past once somebody has needed it. Whoever reads it holds the lock."""

    __slots__ = ("__weakref__", "key_values", "lock")

    def __init__(self, past: KeyValues | None = None) -> None:
        self.lock = Lock()
        self.key_values = past


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """A beginning, as a job asks for it."""

    slot: CacheSlot
    words: Callable[[], Tensor]
    """`[T, D]`"""
    lasting: bool = False
    """Whether the beginning is a row's, and outlives the job."""


class KeyValueCache:
    """Has beginnings read, in any threads, each once.

    Those of rows keep their pasts up to `max_bytes` in all, the least recently used give theirs up first. It does
    not hold them: where a row goes, what was read of it goes as well. Rows are told apart by what they are, not by what
    they say: equal rows of two callers share nothing, and so tell nothing of each other by the time that they take.
    """

    def __init__(self, max_bytes: int, read: Callable[[Sequence[Prefix]], Sequence[KeyValues]]) -> None:
        """`read` takes starts of one length."""
        self._max_bytes = max_bytes
        self._read = read
        self._lock = Lock()
        self._kept: OrderedDict[ref[CacheSlot], int] = OrderedDict()  # bytes; least recently used first
        self._gone: deque[ref[CacheSlot]] = deque()  # told at any moment, even while the lock is held
        self._bytes = 0

    def get(self, starts: Sequence[Prefix], *, batch_size: int = 1) -> list[KeyValues]:
        """Of each; those that another thread is reading come last."""
        found: dict[Prefix, KeyValues] = {}
        free = (start for start in dict.fromkeys(starts) if start.slot.lock.acquire(blocking=False))
        while claimed := list(islice(free, batch_size)):
            try:
                found |= self._find(claimed)
            finally:
                for start in claimed:
                    start.slot.lock.release()
        for start in starts:
            if start not in found:
                with start.slot.lock:
                    found |= self._find([start])
        return [found[start] for start in starts]

    def _find(self, starts: Sequence[Prefix]) -> dict[Prefix, KeyValues]:
        """Called with the locks of the beginnings."""
        found = {start: past for start in starts if (past := start.slot.key_values) is not None}
        if missing := [start for start in starts if start not in found]:
            for start, past in zip(missing, self._read(missing), strict=True):
                start.slot.key_values = found[start] = past
        for start, past in found.items():
            if start.lasting:
                self._keep(start.slot, byte_count(past))
        return found

    def _keep(self, slot: CacheSlot, size: int) -> None:
        with self._lock:
            while self._gone:
                self._bytes -= self._kept.pop(self._gone.popleft(), 0)
            key = ref(slot, self._gone.append)
            if key not in self._kept:
                self._kept[key] = size
                self._bytes += size
            self._kept.move_to_end(key)
            while self._bytes > self._max_bytes:
                oldest, freed = self._kept.popitem(last=False)
                self._bytes -= freed
                if (given_up := oldest()) is not None:
                    given_up.key_values = None
