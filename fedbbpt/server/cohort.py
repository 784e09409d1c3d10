"""Who takes part in a round: a pure function of committed facts, so that nothing has to be stored about it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.types import Member


@dataclass(frozen=True, slots=True)
class CohortSettings:
    """When a run starts and a round closes."""

    clients: int
    """The run starts when so many have joined."""
    quorum: int
    """A round closes with no fewer updates than this."""
    deadline_seconds: float
    """After this a round closes without those who are missing, if there is a quorum."""
    size: int | None = None
    """Clients of a round; None or 0 takes all."""
    owner: bool = False
    """Whether the model's owner has a turn between two rounds of the clients, and the run waits for it too."""

    @property
    def window(self) -> int:
        """In so many rounds as many clients are asked as take part."""
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
    """The ids of the round's clients, sorted; the model's owner is none of them where it has a turn of its own.

    Each member draws a number of its own and the lowest are taken: where one member goes, at most one other takes its
    place, and nobody else's part changes.
    """
    eligible = [m.client_id for m in members if m.since <= round and (m.until is None or round < m.until)]
    ranked = sorted(eligible, key=lambda client_id: (seeds.derive(seed, "cohort", round, client_id), client_id))
    return tuple(sorted(ranked[: size or None]))
