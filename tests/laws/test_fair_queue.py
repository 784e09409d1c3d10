"""Deficit round robin. Kills: serving in order of arrival, and serving whole calls in turn."""

from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.ptm.scheduling.fair_queue import FairQueue

QUANTUM, LARGEST = 8, 40

item_sizes = st.lists(st.integers(1, LARGEST), min_size=1, max_size=30)


@given(st.lists(item_sizes, min_size=1, max_size=5))
def test_every_item_is_served_in_its_tenants_order(calls: list[list[int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(quantum=QUANTUM, max_tokens=10**6)
    for name, sizes in enumerate(calls):
        queue.push(str(name), [(tokens, (str(name), index)) for index, tokens in enumerate(sizes)])
    served = list(iter(queue.pop, None))
    assert queue.tokens == 0
    for name, sizes in enumerate(calls):
        assert [index for tenant, index in served if tenant == str(name)] == list(range(len(sizes)))


@given(st.lists(item_sizes, min_size=2, max_size=5))
def test_waiting_tenants_get_equal_shares(calls: list[list[int]]) -> None:
    """While two tenants have work, neither gets ahead of the other by more than an item and two quanta."""
    queue: FairQueue[tuple[str, int]] = FairQueue(quantum=QUANTUM, max_tokens=10**6)
    for name, sizes in enumerate(calls):
        queue.push(str(name), [(tokens, (str(name), tokens)) for tokens in sizes])
    left, got = (
        {str(name): len(sizes) for name, sizes in enumerate(calls)},
        dict.fromkeys(map(str, range(len(calls))), 0),
    )
    for tenant, tokens in iter(queue.pop, None):
        got[tenant] += tokens
        left[tenant] -= 1
        if all(left.values()):
            assert max(got.values()) - min(got.values()) <= LARGEST + 2 * QUANTUM


@given(item_sizes, item_sizes, st.data())
def test_dropped_items_are_never_served(kept: list[int], dropped: list[int], data: st.DataObject) -> None:
    queue: FairQueue[str] = FairQueue(quantum=QUANTUM, max_tokens=10**6)
    queue.push("a", [(tokens, "dropped") for tokens in dropped])
    queue.push("a", [(tokens, "kept") for tokens in kept])
    early = data.draw(st.integers(0, len(dropped)))
    assert [queue.pop() for _ in range(early)] == ["dropped"] * early
    assert queue.drop("a", lambda item: item == "dropped") == len(dropped) - early
    assert queue.tokens == sum(kept)
    assert list(iter(queue.pop, None)) == ["kept"] * len(kept)
