"""Laws of `server.round.step`, checked against a model that counts updates stored, receipts sent and rounds closed."""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedbbpt.server.cohort import Eligible
from fedbbpt.server.round import (
    CloseRound,
    CohortChanged,
    Effect,
    Event,
    ExtendRound,
    Round,
    SendReceipt,
    StoreUpdate,
    TimePassed,
    UpdateSubmitted,
    step,
)
from fedbbpt.types import Member, Phase, Receipt

CLIENTS = [f"client-{i}" for i in range(5)]
clients = st.sampled_from(CLIENTS)
cohorts = st.frozensets(clients, max_size=5)
NUMBER = 3
DEADLINE_SECONDS = 10.0


class Rounds(RuleBasedStateMachine):
    """One round under any order of answers, repeated answers, changes of the cohort, and ticks.

    Kills: counting a repeat again, closing below the quorum or twice, a receipt COUNTED without StoreUpdate, forgetting
    who was counted when the cohort changes, a deadline that loses received updates, a close that does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.round = Round(NUMBER, Phase.UPDATE, frozenset(CLIENTS[:3]), quorum=2, deadline_seconds=DEADLINE_SECONDS)
        self.now = 0.0
        self.kept: list[str] = []
        self.closes: list[CloseRound] = []

    def feed(self, event: Event) -> tuple[Effect, ...]:
        before = self.round
        after, effects = step(before, event)
        assert step(before, event) == (after, effects), "step is a pure function"
        self.round = after
        self.kept += [effect.client_id for effect in effects if isinstance(effect, StoreUpdate)]
        self.closes += [effect for effect in effects if isinstance(effect, CloseRound)]
        return effects

    @rule(client=clients)
    def answer(self, client: str) -> None:
        before = self.round
        effects = self.feed(UpdateSubmitted(client, NUMBER))
        if client in before.received:
            assert effects == (SendReceipt(client, Receipt.DUPLICATE),)
        elif before.closed:
            assert effects == (SendReceipt(client, Receipt.TOO_LATE),)
        elif client not in before.cohort:
            assert effects == (SendReceipt(client, Receipt.REFUSED),)
        else:
            assert effects == (StoreUpdate(client), SendReceipt(client, Receipt.COUNTED))

    @rule(client=clients, round=st.integers(0, NUMBER - 1), counted=st.none() | st.integers(0, NUMBER - 1))
    def answer_a_closed_round(self, client: str, round: int, counted: int | None) -> None:
        before = self.round
        receipt = Receipt.DUPLICATE if round == counted else Receipt.TOO_LATE
        assert self.feed(UpdateSubmitted(client, round, counted)) == (SendReceipt(client, receipt),)
        assert self.round == before

    @rule(cohort=cohorts)
    def change_cohort(self, cohort: frozenset[str]) -> None:
        received = self.round.received
        assert self.feed(CohortChanged(cohort)) == ()
        assert self.round.received == received <= self.round.cohort
        if not self.round.closed:
            assert self.round.cohort == cohort | received

    @rule(seconds=st.floats(0.0, 15.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        before = self.round
        effects = self.feed(TimePassed(self.now))
        due = before.deadline is not None and self.now >= before.deadline
        if before.closed:
            assert effects == ()
        elif len(before.received) < before.quorum:
            assert self.round.received == before.received
            assert not self.round.closed
            assert effects == ((ExtendRound(tuple(sorted(before.missing))),) if due else ())
        elif not due and before.enough is not None and len(before.received) >= before.enough:
            assert effects == (CloseRound(tuple(sorted(before.received)), ()),)
        elif due or not before.missing:
            assert effects == (CloseRound(tuple(sorted(before.received)), tuple(sorted(before.missing))),)
        else:
            assert effects == ()

    @precondition(lambda self: self.round.deadline is not None)
    @invariant()
    def a_deadline_lies_ahead(self) -> None:
        assert self.round.closed or (self.round.deadline or 0.0) > self.now

    @invariant()
    def counted_once(self) -> None:
        assert len(self.kept) == len(set(self.kept))
        assert self.round.received == set(self.kept)

    @invariant()
    def closes_once_and_with_a_quorum(self) -> None:
        assert len(self.closes) == self.round.closed
        for close in self.closes:
            assert len(close.clients) >= self.round.quorum
            assert set(close.clients) == set(self.kept)


class OverSampledRounds(Rounds):
    """A round that asks more clients than it needs.

    Kills: waiting for a client that others have overtaken, or ending its membership; closing below the quorum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.round = replace(self.round, cohort=frozenset(CLIENTS), enough=3)


TestRounds = Rounds.TestCase
TestOverSampledRounds = OverSampledRounds.TestCase
TestOverSampledRounds.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRounds.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def _members(ids: frozenset[str]) -> Iterator[Member]:
    return (Member(client_id, "key", examples=1, since=0) for client_id in ids)


@given(ids=st.frozensets(clients, min_size=1), seed=st.integers(0, 2**64 - 1), size=st.integers(1, 5))
def test_a_member_that_leaves_is_replaced_by_at_most_one_other(ids: frozenset[str], seed: int, size: int) -> None:
    """Kills: a shuffle of the members, which reshuffles the whole cohort when one of them leaves."""
    cohort = Eligible(_members(ids), seed, 7, size).cohort()
    assert len(cohort) == min(size, len(ids))
    for gone in ids:
        after = Eligible(_members(ids - {gone}), seed, 7, size).cohort()
        assert cohort - {gone} <= after
        assert len(after - cohort) <= (gone in cohort)


@given(since=st.integers(0, 5), until=st.none() | st.integers(0, 8), round=st.integers(0, 8))
def test_members_take_part_from_since_to_before_until(since: int, until: int | None, round: int) -> None:
    """Kills: `since < round`, `round <= until`."""
    member = Member("a", "key", 1, since, until)
    expected = round in range(since, 9 if until is None else until)
    for size in (None, 0):
        assert Eligible([member], 0, round, size).cohort() == ({"a"} if expected else set())


changes = st.lists(st.builds(Member, clients, st.just("key"), st.just(1), st.integers(0, 2), st.none() | st.just(1)))


@given(changes=changes, seed=st.integers(0, 9), size=st.none() | st.integers(1, 3))
def test_changed_members_are_drawn_as_if_they_had_always_been_so(
    changes: list[Member], seed: int, size: int | None
) -> None:
    """Kills: a member that is added twice, one that is not removed."""
    eligible, members = Eligible([], seed, 1, size), dict[str, Member]()
    for member in changes:
        before = eligible.cohort()
        changed = eligible.put(member)
        members[member.client_id] = member
        afresh = Eligible(members.values(), seed, 1, size)
        assert eligible.cohort() == afresh.cohort() and len(eligible) == len(afresh)
        assert changed or eligible.cohort() == before


def test_cohorts_differ_from_round_to_round() -> None:
    """Kills: a draw that forgets the round."""
    members = list(_members(frozenset(CLIENTS)))
    assert len({Eligible(members, 0, round, 2).cohort() for round in range(40)}) == 10
