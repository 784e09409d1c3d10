"""A round as a pure state machine: `step(round, event) -> (round, effects)`.

It decides which updates count, which receipt each client gets and when the round closes. It knows no store, clock or
wire. The caller carries out the effects in order and adopts the new round only once they have succeeded. So a client
gets COUNTED only after its update is stored, and a close that failed is requested again by the next tick.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from fedbbpt.types import Phase, Receipt


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its cohort, and which clients of the cohort have a stored update."""

    number: int
    phase: Phase
    cohort: frozenset[str]
    quorum: int
    """The smallest number of updates that the round closes with."""
    deadline_seconds: float
    received: frozenset[str] = frozenset()
    """The clients whose update is stored. All are in the cohort."""
    deadline: float | None = None
    """On the caller's clock, in seconds; None until the first tick."""
    closed: bool = False
    enough: int | None = None
    """The round closes as soon as so many clients have answered; None waits for all of the cohort."""
    excused: frozenset[str] = frozenset()
    """Clients that the round does not wait for: they reported trouble, or missed a round and have not answered since.

    Their answers count all the same.
    """

    @property
    def missing(self) -> frozenset[str]:
        """The clients of the cohort that have not answered yet."""
        return self.cohort - self.received


@dataclass(frozen=True, slots=True)
class UpdateSubmitted:
    """A client answers its task of `round`."""

    client_id: str
    round: int
    last_counted: int | None = None
    """The last closed round that counted an update of this client."""


@dataclass(frozen=True, slots=True)
class CohortChanged:
    """Clients joined, left or lapsed. Clients with a stored update stay in the cohort in any case."""

    cohort: Iterable[str]


@dataclass(frozen=True, slots=True)
class ClientsExcused:
    """The round waits no longer for these clients, and for no others than before."""

    clients: Iterable[str]


@dataclass(frozen=True, slots=True)
class TimePassed:
    """It is `now`, in seconds on the caller's clock."""

    now: float


Event: TypeAlias = UpdateSubmitted | CohortChanged | ClientsExcused | TimePassed


@dataclass(frozen=True, slots=True)
class StoreUpdate:
    """Store the update of this client durably."""

    client_id: str


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Answer the client with this receipt."""

    client_id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Aggregate the updates of `clients`; the `missing` lapse."""

    clients: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExtendRound:
    """The deadline passed without a quorum. The round has a new deadline and keeps the updates that it has."""

    missing: tuple[str, ...]


Effect: TypeAlias = StoreUpdate | SendReceipt | CloseRound | ExtendRound


def step(round: Round, event: Event) -> tuple[Round, tuple[Effect, ...]]:
    """Returns the round after an event, and the effects that the caller must carry out before it adopts that round."""
    match event:
        case UpdateSubmitted(client_id):
            receipt = receipt_for(round, event)
            if receipt is not Receipt.COUNTED:
                return round, (SendReceipt(client_id, receipt),)
            return with_received(round, [client_id]), (StoreUpdate(client_id), SendReceipt(client_id, receipt))
        case CohortChanged(cohort):
            return (round if round.closed else replace(round, cohort=frozenset(cohort) | round.received)), ()
        case ClientsExcused(clients):
            return replace(round, excused=frozenset(clients)), ()
        case TimePassed(now):
            return _pass_time(round, now)


def receipt_for(round: Round, event: UpdateSubmitted, counted: Collection[str] = ()) -> Receipt:
    """Returns the receipt of an update that arrives after those of the clients `counted`, and together with them.

    Updates that arrive together change the round once, by `with_received`: copying its clients for each of thousands
    would take the time of all of them squared.
    """
    # A client answers its tasks one after another, so only the last counted update can arrive a second time.
    client, current = event.client_id, event.round == round.number
    if event.round == event.last_counted or (current and (client in round.received or client in counted)):
        return Receipt.DUPLICATE
    if not current or round.closed:
        return Receipt.TOO_LATE
    return Receipt.COUNTED if client in round.cohort else Receipt.REFUSED


def with_received(round: Round, clients: Iterable[str]) -> Round:
    """Returns the round with the updates of these clients, whose receipt is COUNTED."""
    return replace(round, received=round.received.union(clients))


def _only_excused_miss(round: Round) -> bool:
    # Counted first, because it is asked at each update.
    return len(round.received) + len(round.excused) >= len(round.cohort) and round.missing <= round.excused


def _pass_time(round: Round, now: float) -> tuple[Round, tuple[Effect, ...]]:
    if round.closed:
        return round, ()
    if round.deadline is None:
        round = replace(round, deadline=now + round.deadline_seconds)
    assert round.deadline is not None
    due = now >= round.deadline
    answered = len(round.received) == len(round.cohort) or _only_excused_miss(round)
    overtaken = not due and round.enough is not None and len(round.received) >= round.enough
    if len(round.received) >= round.quorum and (due or answered or overtaken):
        # Clients that others have overtaken do not lapse, since nobody waited for them.
        missing = () if overtaken else tuple(sorted(round.missing))
        return replace(round, closed=True), (CloseRound(tuple(sorted(round.received)), missing),)
    if due:
        return replace(round, deadline=now + round.deadline_seconds), (ExtendRound(tuple(sorted(round.missing))),)
    return round, ()
