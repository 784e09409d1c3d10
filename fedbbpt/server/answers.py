"""The decoded updates of an open round: as many as a budget of memory allows. The store has all of them.

A linear method needs no more than their sum. The bits of a sum depend on its order, so it is made when the round
closes, in the order of the clients' ids, and reads those updates from the store that were not kept. So a round with any
number of clients takes the memory of a few updates besides the budget, and ends with the bits of a simulation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from fedbbpt.types import Update, merge

KEPT_BYTES = 64 << 20
"""Size of the decoded arrays that are kept for a linear method. Others need all updates at a time."""

Decode = Callable[[str, Update], Update]
"""Returns the decoded update of a client."""


class Answers:
    """The updates of one round, by client id."""

    def __init__(self, stored: Iterable[tuple[str, Update]], decode: Decode, *, linear: bool) -> None:
        """Decodes the stored updates one after the other. Raises what `decode` raises.

        Args:
            stored: The updates in the store when the round opens, encoded, with their clients' ids.
            decode: Decodes an update to this round's broadcast.
            linear: Whether the sum of the updates is enough.
        """
        self._decode, self._linear = decode, linear
        self._kept: dict[str, Update] = {}
        self._bytes = 0
        for client_id, update in stored:
            self.add({client_id: decode(client_id, update)})
            self.trim([client_id])

    def add(self, decoded: Mapping[str, Update]) -> None:
        """Adds updates, which are kept until `trim` or `remove` is called with them."""
        self._kept |= decoded
        self._bytes += sum(map(_size, decoded.values()))

    def remove(self, client_ids: Iterable[str]) -> None:
        """Takes updates back that could not be stored."""
        for client_id in client_ids:
            self._bytes -= _size(self._kept.pop(client_id))

    def trim(self, client_ids: Iterable[str]) -> None:
        """Keeps these updates, which are stored by now, only as far as the budget allows."""
        if self._linear and self._bytes > KEPT_BYTES:
            self.remove(client_ids)

    def counted(self, client_ids: Sequence[str], stored: Callable[[], Mapping[str, Update]]) -> Sequence[Update]:
        """Returns the updates of these clients, which are sorted, or the sum of them, added in this order.

        Args:
            client_ids: The clients whose updates count.
            stored: Returns the updates in the store, encoded. Called only if some are not kept.
        """
        if all(client_id in self._kept for client_id in client_ids):
            return [self._kept[client_id] for client_id in client_ids]
        total, others = list[Update](), stored()
        for client_id in client_ids:
            kept = self._kept.get(client_id)
            update = self._decode(client_id, others[client_id]) if kept is None else kept
            total = [merge([*total, update])] if total else [update]
        return total


def _size(update: Update) -> int:
    return sum(array.nbytes for array in update.arrays.values())
