"""Laws of asynchronous rounds: any answers in any order, also repeated ones, count once, in order, and not too late."""

from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.server.round import CloseRound, Key, Round, SendReceipt, StoreUpdate, TimePassed, UpdateSubmitted, step
from fedbbpt.types import Phase, Receipt

CLIENTS = ("a", "b", "c", "d")
BUFFER, STALENESS = 3, 2
answers = st.lists(st.tuples(st.sampled_from(CLIENTS), st.integers(0, 6)), max_size=60)


def opened(number: int) -> Round:
    oldest = min(number, STALENESS)
    cohort = frozenset(CLIENTS)
    return Round(number, Phase.UPDATE, cohort, 1, 60.0, enough=BUFFER, staleness=oldest)


@given(answers)
def test_every_answer_counts_once_in_order_and_within_its_staleness(sent: list[Key]) -> None:
    """Kills: an update that counts in two rounds, or after a later one of its client, or beyond the most staleness."""
    round, last = opened(0), dict[str, int]()
    counted: list[tuple[int, Key]] = []
    for client, base in sent:
        if base > round.number:
            continue  # the coordinator refuses rounds that are not open yet
        before = round
        round, effects = step(round, UpdateSubmitted(client, base, last.get(client)))
        (receipt,) = (effect.receipt for effect in effects if isinstance(effect, SendReceipt))
        assert (receipt is Receipt.COUNTED) == (StoreUpdate(client) in effects)
        assert (receipt is Receipt.COUNTED) or round == before
        if receipt is Receipt.COUNTED:
            counted.append((round.number, (client, base)))
            assert round.number - STALENESS <= base
        round, effects = step(round, TimePassed(0.0))
        closes = [effect for effect in effects if isinstance(effect, CloseRound)]
        assert bool(closes) == (before.updates + (receipt is Receipt.COUNTED) >= BUFFER)
        for close in closes:
            keys = sorted([*((each, round.number) for each in close.clients), *close.stale])
            assert sorted(key for number, key in counted if number == round.number) == keys
            last |= dict(keys)
            round = opened(round.number + 1)
    keys = [key for _, key in counted]
    assert len(keys) == len(set(keys))
    for client in CLIENTS:
        bases = [base for _, (each, base) in counted if each == client]
        assert bases == sorted(bases)
