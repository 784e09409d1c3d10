"""What the store holds, at hand: every write goes to the store first, and into memory once that succeeded."""

from collections.abc import Sequence

from fedbbpt.interfaces import Store
from fedbbpt.types import Member, Snapshot, TaskId, Update


class Ledger:
    """Members and snapshot of one run. Every method may raise StoreError, and has changed nothing then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.members = dict(store.members())
        self.snapshot = store.load()

    def put_member(self, member: Member) -> None:
        if self.members.get(member.client_id) != member:
            self._store.put_member(member)
            self.members[member.client_id] = member

    def put_update(self, task_id: TaskId, update: Update) -> None:
        self._store.put_update(task_id, update)

    def updates(self, round: int) -> dict[str, Update]:
        """By client id, in its order."""
        return dict(sorted(self._store.updates(round).items()))

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        self._store.commit(snapshot, members)
        self.snapshot = snapshot
        self.members |= {member.client_id: member for member in members}
