"""A `Store` in memory, which lasts as long as its process: for simulation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedbbpt.errors import StoreError
from fedbbpt.types import Member, Snapshot, TaskId, Update


class MemoryStore:
    """Holds the stored values themselves, without copies: no one writes into an array after handing it over."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._members: dict[str, Member] = {}
        self._updates: dict[tuple[int, str], Update] = {}

    def load(self) -> Snapshot | None:
        return self._snapshot

    def members(self) -> Mapping[str, Member]:
        return dict(self._members)

    def put_members(self, members: Sequence[Member]) -> None:
        self._members |= {member.client_id: member for member in members}

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        for task_id, update in updates:
            self._updates.setdefault((task_id.round, task_id.client_id), update)

    def updates(self, round: int) -> Mapping[str, Update]:
        return {client_id: update for (at, client_id), update in sorted(self._updates.items()) if at == round}

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        if self._snapshot is None or snapshot.round > self._snapshot.round:
            self._updates = {key: update for key, update in self._updates.items() if key[0] >= snapshot.round}
        self._snapshot = snapshot
        self.put_members(members)

    def backup(self, path: Path) -> None:
        raise StoreError("a run in memory has no backup", fix="a coordinator with a store")

    def close(self) -> None:
        """Does nothing: there is no resource to release."""
