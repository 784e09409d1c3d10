"""A store that counts how long its writes take, for the metrics of a coordinator."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedbbpt.interfaces import Store
from fedbbpt.types import Member, Snapshot, TaskId, Update

BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
"""Upper bounds of the classes in which durations are counted: a commit with a flush takes a millisecond on an SSD."""


class Durations:
    """A histogram of durations."""

    def __init__(self) -> None:
        self.counts = Counter[float]()
        """The number of durations by the smallest bound that they do not exceed, or infinity."""
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts a duration."""
        bound = next((bound for bound in BUCKETS_SECONDS if seconds <= bound), float("inf"))
        self.counts[bound] += 1
        self.seconds += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        """Returns for each bound the number of durations up to it, as Prometheus wants it."""
        total, found = 0, list[tuple[str, float]]()
        for bound in (*BUCKETS_SECONDS, float("inf")):
            total += self.counts[bound]
            found.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return found


class TimedStore:
    """Passes everything on to another `Store`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.perf_counter) -> None:
        self._store, self._clock = store, clock
        self.writes: Mapping[str, Durations] = {kind: Durations() for kind in ("members", "updates", "commit")}

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        begun = self._clock()
        try:
            yield
        finally:
            self.writes[kind].add(self._clock() - begun)

    def load(self) -> Snapshot | None:
        return self._store.load()

    def members(self) -> Mapping[str, Member]:
        return self._store.members()

    def put_members(self, members: Sequence[Member]) -> None:
        with self._timed("members"):
            self._store.put_members(members)

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        with self._timed("updates"):
            self._store.put_updates(updates)

    def updates(self, round: int) -> Mapping[str, Update]:
        return self._store.updates(round)

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        with self._timed("commit"):
            self._store.commit(snapshot, members)

    def backup(self, path: Path) -> None:
        self._store.backup(path)

    def close(self) -> None:
        self._store.close()
