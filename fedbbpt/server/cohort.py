"""The cohort of a round: a pure function of committed facts, so that a round's cohort need not be stored."""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.types import Member


@dataclass(frozen=True, slots=True)
class CohortRules:
    """The conditions for a run to start and for a round to close. Raises InvalidJob if no round could ever close."""

    clients: int
    """The number of clients that must join before the run starts."""
    quorum: int
    """The smallest number of updates that a round closes with."""
    deadline_seconds: float
    """The time after which a round with a quorum closes without the missing clients."""
    size: int | None = None
    """The number of clients in a round; None or 0 takes all."""
    over_sample: float = 1.0
    """How many times as many clients are asked as a round of `size` needs. It closes when `size` have answered."""
    owner: bool = False
    """Whether the model's owner has a turn between two rounds of the clients. The run then waits for the owner too."""
    buffer: int = 0
    """In asynchronous runs, the number of updates that a round closes with (K); 0: rounds are synchronous."""
    max_staleness: int = 0
    """In asynchronous runs, how many rounds after its own an update still counts (S)."""

    @property
    def window(self) -> int:
        """The number of rounds in which as many clients are sampled as take part in the run."""
        return math.ceil(self.clients / self.size) if self.size else 1

    @property
    def asked(self) -> int | None:
        """The number of clients that are asked in a round; None asks all."""
        return math.ceil(self.size * self.over_sample) if self.size else None

    @property
    def enough(self) -> int | None:
        """The number of answers with which a round closes at once; None if it waits for all that it has asked."""
        return self.buffer or (self.size if self.size and self.over_sample > 1 else None)

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise InvalidJob(f"{self.clients}", where="cohort.clients", fix="at least 1")
        most = min(self.clients, self.size or self.clients, self.buffer or self.clients)
        if not 1 <= self.quorum <= most:
            raise InvalidJob(f"{self.quorum}", where="cohort.quorum", fix=f"from 1 to {most}, the clients of a round")
        if not 0 <= self.buffer <= self.clients:
            raise InvalidJob(f"{self.buffer}", where="cohort.buffer", fix=f"from 1 to {self.clients}, the clients")
        if not self.deadline_seconds > 0:
            raise InvalidJob(f"{self.deadline_seconds}", where="cohort.deadline_seconds", fix="more than 0")


class Eligible:
    """The members that take part in one round, in the order of their draws, so that a change costs one insertion.

    Each member draws its own number, and the lowest numbers are sampled. So when a member leaves, at most one other
    member takes its place and the rest of the cohort stays the same.
    """

    def __init__(self, members: Iterable[Member], seed: int, round: int, size: int | None) -> None:
        """
        Args:
            members: All that may be asked in the round; those that do not take part in it are left out.
            seed: The seed of the run.
            round: The round's number.
            size: The number of clients in the round; None or 0 takes all.
        """
        self._seed, self._round, self._size = seed, round, size or None
        self._drawn = sorted(self._draw(m.client_id) for m in members if self._takes_part(m))

    def _draw(self, client_id: str) -> tuple[int, str]:
        # Where all are taken, the draws do not matter.
        return seeds.derive(self._seed, "cohort", self._round, client_id) if self._size else 0, client_id

    def _takes_part(self, member: Member) -> bool:
        return member.since <= self._round and (member.until is None or self._round < member.until)

    def put(self, member: Member) -> bool:
        """Adds a member, or removes it if it no longer takes part. Returns whether that changes anything."""
        draw = self._draw(member.client_id)
        place = bisect_left(self._drawn, draw)
        known, takes_part = self._drawn[place : place + 1] == [draw], self._takes_part(member)
        if takes_part and not known:
            insort(self._drawn, draw)
        if known and not takes_part:
            del self._drawn[place]
        return known != takes_part

    def __len__(self) -> int:
        return len(self._drawn)

    def cohort(self) -> frozenset[str]:
        """Returns the ids of the round's clients: `size` of the members that take part, or all of them."""
        return frozenset(client_id for _, client_id in self._drawn[: self._size])
