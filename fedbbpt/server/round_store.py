"""A `Store` that makes whole rounds durable and nothing in between: for a simulation, which repeats a round at will."""

from collections.abc import Callable, Sequence

from fedbbpt.interfaces import Store
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import Member, Snapshot


class RoundStore(MemoryStore):
    """Keeps updates and new members in memory, and passes them on with the snapshot of the next commit.

    No client waits for a receipt across a crash, so an update need not survive one: the interrupted round is played
    again from its beginning, with the same bits.
    """

    def __init__(self, durable: Store, before_commit: Callable[[Snapshot], None] = lambda snapshot: None) -> None:
        """
        Args:
            durable: The store that snapshots and members are written to, and read from now.
            before_commit: Called with each snapshot before it is written.
        """
        super().__init__()
        self._durable, self._before_commit = durable, before_commit
        self._snapshot, self._members = durable.load(), dict(durable.members())
        self._changed: dict[str, Member] = {}

    def put_members(self, members: Sequence[Member]) -> None:
        super().put_members(members)
        self._changed |= {member.client_id: member for member in members}

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        changed = self._changed | {member.client_id: member for member in members}
        self._before_commit(snapshot)
        self._durable.commit(snapshot, list(changed.values()))
        super().commit(snapshot, members)
        self._changed = {}

    def close(self) -> None:
        self._durable.close()
