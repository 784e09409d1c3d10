"""A write-through cache of the store: each write goes to the store first, and into memory once that succeeded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fedbbpt.interfaces import Store
from fedbbpt.server.round import Key
from fedbbpt.types import Member, Snapshot, TaskId, Update


class CachedStore:
    """The members and the snapshot of one run, in memory and in its store.

    Every method may raise StoreError, and has changed nothing in that case.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.members = dict(store.members())
        self.snapshot = store.load()

    def put_members(self, members: Sequence[Member]) -> None:
        """Stores members in one transaction; a member that is stored already is not written again."""
        changed = [member for member in members if self.members.get(member.client_id) != member]
        if changed:
            self._store.put_members(changed)
            self.members |= {member.client_id: member for member in changed}

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        """Stores updates, encoded as the clients sent them, in one transaction. Updates are not cached."""
        self._store.put_updates(updates)

    def updates(self, rounds: Iterable[int]) -> Mapping[Key, Update]:
        """Returns the stored updates to the tasks of some rounds, each of which is read when it is asked for."""
        return _Updates({round: self._store.updates(round) for round in rounds})

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        """Stores the snapshot and the changed members in one transaction."""
        self._store.commit(snapshot, members)
        self.snapshot = snapshot
        self.members |= {member.client_id: member for member in members}

    def backup(self, path: Path) -> None:
        """Writes all of the store into a new file. Raises FileExistsError, StoreError."""
        self._store.backup(path)


class _Updates(Mapping[Key, Update]):
    def __init__(self, stored: Mapping[int, Mapping[str, Update]]) -> None:
        self._stored = stored

    def __getitem__(self, key: Key) -> Update:
        client_id, round = key
        return self._stored[round][client_id]

    def __iter__(self) -> Iterator[Key]:
        return ((client_id, round) for round, updates in self._stored.items() for client_id in updates)

    def __len__(self) -> int:
        return sum(map(len, self._stored.values()))
