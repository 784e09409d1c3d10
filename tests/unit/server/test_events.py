"""What a coordinator remembers of its run for people: events, when clients were last heard, and who is late."""

from fedbbpt.limits import MAX_EVENTS
from fedbbpt.server.events import RunEvents, names
from fedbbpt.types import EventKind, RunEvent
from fedbbpt.wire.messages import operator_messages
from tests.coordinators import DEADLINE, Bench


def _told(bench: Bench) -> list[tuple[str, str, str]]:
    return [(event.kind, event.client_id, event.text) for event in bench.coordinator.events.since(0)]


def test_a_run_tells_what_happened_in_it() -> None:
    bench = Bench(quorum=1, rounds=1)
    bench.join("anna", "berta")
    bench.coordinator.report_trouble(bench.sessions["berta"], "no PTM", 5.0, bench.now)
    bench.coordinator.report_trouble(bench.sessions["berta"], "", 6.0, bench.now)
    bench.answer("anna")
    bench.wait(DEADLINE)
    assert _told(bench) == [
        ("join", "anna", "4 training examples"),
        ("join", "berta", "4 training examples"),
        ("start", "", "2 clients have joined"),
        ("trouble", "berta", "no PTM"),
        ("recovery", "berta", ""),
        ("round", "", "closed with 1 answer"),
        ("late", "berta", "no answer of berta"),
    ]
    bench.answer("anna")
    assert _told(bench)[-1] == ("end", "", "finished")
    numbers = [event.number for event in bench.coordinator.events.since(0)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert bench.coordinator.events.since(numbers[-2])[0].number == numbers[-1]


def test_a_client_is_late_from_a_missed_deadline_until_it_answers() -> None:
    bench = Bench(quorum=2)
    bench.join("anna", "berta")
    bench.coordinator.connected(bench.sessions["berta"])
    bench.answer("anna")
    before = {member.client_id: member for member in bench.coordinator.status().members}
    assert all(member.heard_at > 0 and member.late_since == 0 for member in before.values())
    bench.wait(DEADLINE)
    late = {member.client_id: member.late_since for member in bench.coordinator.status().members}
    assert late["anna"] == 0 and late["berta"] >= before["berta"].heard_at
    kind, _, text = _told(bench)[-1]
    assert kind == "extension" and text == "1 of 2 answers by the deadline; waiting for berta"
    bench.answer("berta")
    after = {member.client_id: member for member in bench.coordinator.status().members}
    assert after["berta"].late_since == 0 and after["berta"].heard_at >= late["berta"]


def test_a_client_that_lapsed_is_told_apart_as_late() -> None:
    bench = Bench(quorum=1)
    bench.join("anna", "berta")
    bench.answer("anna")
    bench.wait(DEADLINE)
    status = bench.coordinator.status()
    assert [member.client_id for member in status.members] == ["anna"]
    (late,) = status.late
    assert late.client_id == "berta" and late.late_since > 0 and not late.takes_part
    bench.coordinator.leave(bench.sessions["berta"], bench.now)
    assert not bench.coordinator.status().late


def test_a_stream_that_ends_is_an_event_while_the_run_goes_on() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    bench.coordinator.connected(bench.sessions["anna"])
    bench.coordinator.disconnected(bench.sessions["anna"])
    assert _told(bench)[-1] == ("disconnection", "anna", "")


def test_a_status_says_what_the_run_waits_for() -> None:
    bench = Bench(clients=2, quorum=1)
    bench.join("anna")
    waiting = bench.coordinator.status()
    assert (waiting.clients, waiting.round_since) == (2, 0)
    bench.join("berta")
    open_round = bench.coordinator.status()
    assert open_round.round_since > 0 and (open_round.quorum, open_round.deadline_seconds) == (1, DEADLINE)


def test_the_oldest_events_are_forgotten() -> None:
    events = RunEvents(lambda: 7.0)
    for number in range(MAX_EVENTS + 5):
        events.add(EventKind.ROUND, round=number)
    kept = events.since(0)
    assert len(kept) == MAX_EVENTS and kept[0].number == 6 and kept[-1].time == 7.0


def test_a_text_names_a_few_clients() -> None:
    assert names(["b", "a"]) == "a, b"
    assert names(str(n) for n in range(8)) == "0, 1, 2, 3, 4 and 3 more"


def test_events_travel() -> None:
    for number, kind in enumerate(EventKind, 1):
        event = RunEvent(number, 1.5, kind, "anna", 3, "why")
        message = operator_messages.Progress().response(Bench().coordinator.status(), (), events=[event]).events[0]
        assert operator_messages.event(message) == event
