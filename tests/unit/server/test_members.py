"""Membership: a name belongs to one key, and no round waits for clients in trouble or for silent ones."""

import pytest

from fedbbpt.errors import ClientIdTaken, NotFound, SessionEvicted
from fedbbpt.types import PtmIdentity, Receipt
from tests.coordinators import DEADLINE, Bench


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_a_name_belongs_to_its_first_key(connected: bool, restarted: bool) -> None:
    """Also when its client is away, and after a restart of the coordinator."""
    bench = Bench(clients=2, quorum=1)
    bench.join("anna")
    if connected:
        bench.coordinator.connected(bench.sessions["anna"])
    if restarted:
        bench.restart()
    with pytest.raises(
        ClientIdTaken, match="anna: a client with another key has this name; another --name, the --state"
    ):
        bench.join("anna", key="another")
    bench.join("anna")


def test_a_removed_client_leaves_its_name_to_another() -> None:
    bench = Bench(clients=2, quorum=1)
    bench.join("anna", "ben")
    session = bench.sessions["anna"]
    bench.answer("anna")
    bench.coordinator.remove("anna", bench.now)
    with pytest.raises(SessionEvicted):
        bench.coordinator.task_for(session)
    assert [member.client_id for member in bench.coordinator.members()] == ["ben"]
    bench.answer("ben")
    assert bench.last.clients == 2, "what was counted stays counted"
    with pytest.raises(NotFound, match="anna: no client has this name; a name that `fedbbpt members list` shows"):
        bench.coordinator.remove("anna", bench.now)
    bench.restart()
    bench.join("anna", key="another")
    with pytest.raises(ClientIdTaken):
        bench.join("anna")


def test_a_client_in_trouble_does_not_hold_the_round() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "ben", "cleo")
    bench.coordinator.report_trouble(bench.sessions["cleo"], "PtmUnavailable: no answer", 1e9, bench.now)
    (cleo,) = [member for member in bench.coordinator.status().members if member.trouble]
    assert (cleo.client_id, cleo.trouble, cleo.trouble_since) == ("cleo", "PtmUnavailable: no answer", 1e9)
    late = bench.task("cleo")
    assert late is not None
    bench.answer("anna")
    assert bench.round == 0, "a quorum is awaited all the same"
    bench.answer("ben")
    assert bench.round == 1 and bench.last.clients == 2
    assert bench.submit("cleo", late) is Receipt.TOO_LATE
    assert not any(member.trouble for member in bench.coordinator.members()), "an answer ends the trouble"
    bench.answer("anna", "ben")
    assert bench.round == 2, "the open round did not ask cleo"
    bench.answer("anna", "ben")
    assert bench.round == 2, "the next one waits for it"
    bench.answer("cleo")
    assert bench.round == 3


def test_trouble_that_begins_last_closes_the_round() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "ben", "cleo")
    bench.answer("anna", "ben")
    bench.coordinator.report_trouble(bench.sessions["cleo"], "x" * 1000, 1e9, bench.now)
    assert bench.round == 1
    assert len(bench.coordinator.members()[2].trouble) == 300


def test_trouble_that_is_over_is_waited_for_again() -> None:
    bench = Bench(clients=2, quorum=1)
    bench.join("anna", "ben")
    bench.coordinator.report_trouble(bench.sessions["ben"], "no answer", 1e9, bench.now)
    bench.coordinator.report_trouble(bench.sessions["ben"], "", 2e9, bench.now)
    bench.answer("anna")
    assert bench.round == 0 and not any(member.trouble for member in bench.coordinator.members())


def test_a_silent_client_is_asked_again_as_long_as_its_stream_is_open() -> None:
    """Once in the time of a deadline, and without being waited for, so that it costs the others nothing."""
    bench = Bench(clients=2, quorum=1, rounds=8)
    bench.join("anna", "ben")
    bench.coordinator.connected(bench.sessions["ben"])
    bench.answer("anna")
    bench.wait(DEADLINE)
    assert bench.round == 1 and bench.task("ben") is None, "it missed round 0"
    bench.answer("anna")
    assert bench.round == 2 and bench.task("ben") is None
    bench.now += DEADLINE
    bench.answer("anna")
    assert bench.round == 3 and bench.task("ben") is None, "it takes part from the next round on"
    bench.answer("anna")
    assert bench.round == 4 and bench.task("ben") is not None, "asked again"
    bench.answer("anna")
    assert bench.round == 5 and bench.last.clients == 1, "and not waited for"
    bench.now += DEADLINE
    bench.answer("anna")
    bench.answer("anna")
    assert bench.round == 7
    bench.answer("ben")
    assert bench.round == 7, "since it answered, it and the others are waited for"
    bench.answer("anna")
    assert bench.round == 8 and bench.last.clients == 2


def test_the_ptm_is_known_if_all_clients_ask_the_same() -> None:
    bench = Bench(clients=2, quorum=1)
    bench.join("anna", "ben")
    assert bench.coordinator.ptm is None
    for name, revision in (("anna", "r1"), ("ben", "r1")):
        bench.coordinator.report_ptm(bench.sessions[name], PtmIdentity("fake", revision))
        assert bench.coordinator.ptm == PtmIdentity("fake", "r1")
    bench.coordinator.report_ptm(bench.sessions["ben"], PtmIdentity("fake", "r2"))
    assert bench.coordinator.ptm is None
