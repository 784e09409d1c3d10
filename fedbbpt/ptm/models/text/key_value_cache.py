"""A cache of keys and values: each prefix is computed once per job, and prefixes of examples also outlive the job."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from weakref import ref

from torch import Tensor

from fedbbpt.ptm.models.text.key_values import KeyValues, byte_count


class CacheSlot:
    """A place for the keys and values of one prefix; None until a thread has computed them, holding the lock."""

    __slots__ = ("__weakref__", "key_values", "lock")

    def __init__(self, key_values: KeyValues | None = None) -> None:
        """Makes an empty slot, or one that is filled from the start."""
        self.lock = Lock()
        self.key_values = key_values


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The tokens that several pairs of a job begin with."""

    slot: CacheSlot
    embed: Callable[[], Tensor]
    """Returns the prefix's word vectors `[T, D]`."""
    outlives_job: bool = False
    """True if the slot belongs to an example, so that later jobs can use it too."""


class KeyValueCache:
    """Computes the keys and values of prefixes, each once, in any number of threads.

    Slots of examples keep their keys and values up to `max_bytes` in all; the least recently used are emptied first.
    The cache holds slots by weak references: when an example is dropped, so are its keys and values. Examples are
    distinguished by identity and not by content: two callers with equal examples share no slot, so that the time of a
    call tells neither of them anything about the other.
    """

    def __init__(self, max_bytes: int, compute: Callable[[Sequence[Prefix]], Sequence[KeyValues]]) -> None:
        """`compute` returns the keys and values of prefixes of one length, in their order."""
        self._max_bytes = max_bytes
        self._compute = compute
        self._lock = Lock()
        self._bytes_by_slot: OrderedDict[ref[CacheSlot], int] = OrderedDict()  # least recently used first
        self._dead: deque[ref[CacheSlot]] = deque()  # slots are collected at any moment, even while the lock is held
        self._bytes = 0

    def get(self, prefixes: Sequence[Prefix], *, batch_size: int = 1) -> list[KeyValues]:
        """Returns the keys and values of each prefix, computing up to `batch_size` missing ones in one pass.

        Prefixes that another thread is computing are waited for last.
        """
        found: dict[Prefix, KeyValues] = {}
        free = (prefix for prefix in dict.fromkeys(prefixes) if prefix.slot.lock.acquire(blocking=False))
        while claimed := list(islice(free, batch_size)):
            try:
                found |= self._find(claimed)
            finally:
                for prefix in claimed:
                    prefix.slot.lock.release()
        for prefix in prefixes:
            if prefix not in found:
                with prefix.slot.lock:
                    found |= self._find([prefix])
        return [found[prefix] for prefix in prefixes]

    def _find(self, prefixes: Sequence[Prefix]) -> dict[Prefix, KeyValues]:
        """Looks prefixes up and computes the missing ones. The caller holds the locks of their slots."""
        found = {prefix: known for prefix in prefixes if (known := prefix.slot.key_values) is not None}
        if missing := [prefix for prefix in prefixes if prefix not in found]:
            for prefix, computed in zip(missing, self._compute(missing), strict=True):
                prefix.slot.key_values = found[prefix] = computed
        for prefix, key_values in found.items():
            if prefix.outlives_job:
                self._keep(prefix.slot, byte_count(key_values))
        return found

    def _keep(self, slot: CacheSlot, size: int) -> None:
        """Marks a slot as the most recently used, and empties others while all together are too large."""
        with self._lock:
            while self._dead:
                self._bytes -= self._bytes_by_slot.pop(self._dead.popleft(), 0)
            key = ref(slot, self._dead.append)
            if key not in self._bytes_by_slot:
                self._bytes_by_slot[key] = size
                self._bytes += size
            self._bytes_by_slot.move_to_end(key)
            while self._bytes > self._max_bytes:
                oldest, freed = self._bytes_by_slot.popitem(last=False)
                self._bytes -= freed
                if (evicted := oldest()) is not None:
                    evicted.key_values = None
