"""A round as a pure state machine: `step(round, event) -> (round, effects)`.

It decides who is counted, what each client is told and when the round closes; it knows no store, clock or wire.
Effects are carried out in order, and the new round holds only once they have succeeded: a client is told COUNTED after
its update is stored, and a close that failed is asked for again by the next tick.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from fedbbpt.types import Phase, Receipt


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its cohort, and those of it whose update is stored."""

    number: int
    phase: Phase
    cohort: frozenset[str]
    quorum: int
    """The round closes with no fewer updates than this."""
    deadline_seconds: float
    received: frozenset[str] = frozenset()
    deadline: float | None = None
    """On the caller's clock; None until the first tick."""
    closed: bool = False

    @property
    def missing(self) -> frozenset[str]:
        return self.cohort - self.received


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client answers a task of `round`; `counted` is the last closed round that counted it."""

    client_id: str
    round: int
    counted: int | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Clients came or went: the cohort is now these, and whoever was counted already."""

    cohort: Iterable[str]


@dataclass(frozen=True, slots=True)
class Tick:
    now: float


Event: TypeAlias = Submitted | Enrolled | Tick


@dataclass(frozen=True, slots=True)
class Keep:
    """Store the update, durably."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    client_id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Close:
    """Aggregate these clients' updates; the missing lapse."""

    clients: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """The deadline passed without a quorum, and a new one was set; nothing is lost."""

    missing: tuple[str, ...]


Effect: TypeAlias = Keep | Acknowledge | Close | Extend


def step(round: Round, event: Event) -> tuple[Round, tuple[Effect, ...]]:
    match event:
        case Submitted():
            return _submitted(round, event)
        case Enrolled(cohort):
            return (round if round.closed else replace(round, cohort=frozenset(cohort) | round.received)), ()
        case Tick(now):
            return _tick(round, now)


def _submitted(round: Round, event: Submitted) -> tuple[Round, tuple[Effect, ...]]:
    """A client answers one task after the other, so the last that counted is all that it can come back with."""
    client, current = event.client_id, event.round == round.number
    if event.round == event.counted or (current and client in round.received):
        return round, (Acknowledge(client, Receipt.DUPLICATE),)
    if not current or round.closed:
        return round, (Acknowledge(client, Receipt.TOO_LATE),)
    if client not in round.cohort:
        return round, (Acknowledge(client, Receipt.REFUSED),)
    counted = replace(round, received=round.received | {client})
    return counted, (Keep(client), Acknowledge(client, Receipt.COUNTED))


def _tick(round: Round, now: float) -> tuple[Round, tuple[Effect, ...]]:
    if round.closed:
        return round, ()
    if round.deadline is None:
        round = replace(round, deadline=now + round.deadline_seconds)
    assert round.deadline is not None
    due = now >= round.deadline
    missing = tuple(sorted(round.missing))
    if len(round.received) >= round.quorum and (due or not missing):
        return replace(round, closed=True), (Close(tuple(sorted(round.received)), missing),)
    if due:
        return replace(round, deadline=now + round.deadline_seconds), (Extend(missing),)
    return round, ()
