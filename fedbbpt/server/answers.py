"""The decoded updates of an open round: as many as a budget of memory allows. The store has all of them.

A linear method needs no more than their sum. The bits of a sum depend on its order, so it is made when the round
closes, in the order of the clients' ids, and reads those updates from the store that were not kept. So a round with any
number of clients takes the memory of a few updates besides the budget, and ends with the bits of a simulation.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from fedbbpt.types import Update, merge

KEPT_BYTES = 64 << 20
"""Size of the decoded arrays that are kept for a linear method. Others need all updates at a time."""

K = TypeVar("K", bound=Hashable)


class Answers(Generic[K]):
    """The updates of one round by a key that names an update: its client, and the round of its task."""

    def __init__(
        self, stored: Iterable[tuple[K, Update]], decode: Callable[[K, Update], Update], *, linear: bool
    ) -> None:
        """Decodes the stored updates one after the other. Raises what `decode` raises.

        Args:
            stored: The updates in the store when the round opens, encoded, with their keys.
            decode: Decodes an update to its task's broadcast.
            linear: Whether the sum of the updates is enough.
        """
        self._decode, self._linear = decode, linear
        self._kept: dict[K, Update] = {}
        self._bytes = 0
        for key, update in stored:
            self.add({key: decode(key, update)})
            self.trim([key])

    def add(self, decoded: Mapping[K, Update]) -> None:
        """Adds updates, which are kept until `trim` or `remove` is called with them."""
        self._kept |= decoded
        self._bytes += sum(map(_size, decoded.values()))

    def remove(self, keys: Iterable[K]) -> None:
        """Takes updates back that could not be stored."""
        for key in keys:
            self._bytes -= _size(self._kept.pop(key))

    def trim(self, keys: Iterable[K]) -> None:
        """Keeps these updates, which are stored by now, only as far as the budget allows."""
        if self._linear and self._bytes > KEPT_BYTES:
            self.remove(keys)

    def counted(self, keys: Sequence[K], stored: Callable[[], Mapping[K, Update]]) -> Sequence[Update]:
        """Returns the updates of these keys, which are sorted, or the sum of them, added in this order.

        Args:
            keys: The updates that count.
            stored: Returns the updates in the store, encoded. Called only if some are not kept.
        """
        if all(key in self._kept for key in keys):
            return [self._kept[key] for key in keys]
        total, others = list[Update](), stored()
        for key in keys:
            kept = self._kept.get(key)
            update = self._decode(key, others[key]) if kept is None else kept
            total = [merge([*total, update])] if total else [update]
        return total


def _size(update: Update) -> int:
    return sum(array.nbytes for array in update.arrays.values())
