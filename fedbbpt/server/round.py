"""A round as a pure state machine: `step(round, event) -> (round, effects)`.

It decides which updates count, which receipt each client gets and when the round closes. It knows no store, clock or
wire. The caller carries out the effects in order and adopts the new round only once they have succeeded. So a client
gets COUNTED only after its update is stored, and a close that failed is requested again by the next tick.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from fedbbpt.types import Phase, Receipt

Key: TypeAlias = tuple[str, int]
"""An update: its client, and the round of its task."""


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
    """The round closes as soon as it has so many updates; None waits for all of the cohort."""
    excused: frozenset[str] = frozenset()
    """Clients that the round does not wait for: they reported trouble, or missed a round and have not answered since.

    Their answers count all the same.
    """
    staleness: int = 0
    """The number of rounds before this one whose tasks can still be answered, in asynchronous runs."""
    stale: frozenset[Key] = frozenset()
    """Stored updates that answer tasks of earlier rounds and count in this one."""

    @property
    def updates(self) -> int:
        """The number of stored updates."""
        return len(self.received) + len(self.stale)

    def has(self, key: Key) -> bool:
        """Returns whether an update is stored."""
        client_id, number = key
        return client_id in self.received if number == self.number else key in self.stale

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
    """The last round whose task this client answered with an update that a closed round counted."""


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
    """Aggregate the updates of `clients`, and the `stale` ones of earlier rounds; the `missing` lapse."""

    clients: tuple[str, ...]
    missing: tuple[str, ...]
    stale: tuple[Key, ...] = ()


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
            counted = with_received(round, [(client_id, event.round)])
            return counted, (StoreUpdate(client_id), SendReceipt(client_id, receipt))
        case CohortChanged(cohort):
            return (round if round.closed else replace(round, cohort=frozenset(cohort) | round.received)), ()
        case ClientsExcused(clients):
            return replace(round, excused=frozenset(clients)), ()
        case TimePassed(now):
            return _pass_time(round, now)


def receipt_for(round: Round, event: UpdateSubmitted, counted: Collection[Key] = ()) -> Receipt:
    """Returns the receipt of an update that arrives after the updates `counted`, and together with them.

    Updates that arrive together change the round once, by `with_received`: copying its clients for each of thousands
    would take the time of all of them squared.
    """

    def answered(number: int) -> bool:
        return round.has((event.client_id, number)) or (event.client_id, number) in counted

    # A client answers its tasks one after another, so only the last counted update can arrive a second time.
    if event.round == event.last_counted or answered(event.round):
        return Receipt.DUPLICATE
    oldest = max(round.number - round.staleness, -1 if event.last_counted is None else event.last_counted)
    if round.closed or not oldest <= event.round <= round.number:
        return Receipt.TOO_LATE
    if any(answered(later) for later in range(event.round + 1, round.number + 1)):
        return Receipt.TOO_LATE
    return Receipt.COUNTED if event.client_id in round.cohort else Receipt.REFUSED


def with_received(round: Round, keys: Collection[Key]) -> Round:
    """Returns the round with these updates, whose receipt is COUNTED."""
    received = round.received.union(client_id for client_id, number in keys if number == round.number)
    stale = round.stale.union(key for key in keys if key[1] < round.number)
    return replace(round, received=received, stale=stale)


def closed_by_sum(round: Round, clients: Collection[str]) -> tuple[Round, tuple[Effect, ...]]:
    """Returns the round after secure aggregation has summed the answers of these clients, and how it closes.

    Those that it did not wait for lapse, as after a deadline.
    """
    missing = tuple(sorted(round.cohort - set(clients)))
    return replace(round, closed=True), (CloseRound(tuple(sorted(clients)), missing),)


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
    overtaken = not due and round.enough is not None and round.updates >= round.enough
    if round.updates >= round.quorum and (due or answered or overtaken):
        # Clients that others have overtaken do not lapse, since nobody waited for them.
        missing = () if overtaken else tuple(sorted(round.missing))
        close = CloseRound(tuple(sorted(round.received)), missing, tuple(sorted(round.stale)))
        return replace(round, closed=True), (close,)
    if due:
        return replace(round, deadline=now + round.deadline_seconds), (ExtendRound(tuple(sorted(round.missing))),)
    return round, ()
