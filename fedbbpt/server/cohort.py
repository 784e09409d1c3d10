"""The cohort of a round: a pure function of committed facts, so that a round's cohort need not be stored."""

import math
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
    owner: bool = False
    """Whether the model's owner has a turn between two rounds of the clients. The run then waits for the owner too."""

    @property
    def window(self) -> int:
        """The number of rounds in which as many clients are sampled as take part in the run."""
        return math.ceil(self.clients / self.size) if self.size else 1

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise InvalidJob(f"{self.clients}", where="cohort.clients", fix="at least 1")
        most = min(self.clients, self.size or self.clients)
        if not 1 <= self.quorum <= most:
            raise InvalidJob(f"{self.quorum}", where="cohort.quorum", fix=f"from 1 to {most}, the clients of a round")
        if not self.deadline_seconds > 0:
            raise InvalidJob(f"{self.deadline_seconds}", where="cohort.deadline_seconds", fix="more than 0")


def sample(members: Iterable[Member], seed: int, round: int, size: int | None) -> tuple[str, ...]:
    """Returns the ids of the round's clients, sorted: `size` of the members that take part, or all of them.

    Each member draws its own number, and the lowest numbers are taken. So when a member leaves, at most one other
    member takes its place and the rest of the cohort stays the same.
    """
    eligible = [m.client_id for m in members if m.since <= round and (m.until is None or round < m.until)]
    ranked = sorted(eligible, key=lambda client_id: (seeds.derive(seed, "cohort", round, client_id), client_id))
    return tuple(sorted(ranked[: size or None]))
