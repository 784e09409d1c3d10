"""The coordinator, called as functions: time is a number, and the store is in memory.

Long, because it covers each event of a run.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedbbpt import seeds
from fedbbpt.errors import (
    FedbbptError,
    InvalidHello,
    InvalidJob,
    InvalidTensor,
    InvalidUpdate,
    NoResultYet,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    StoreFull,
    UnknownRound,
    UnknownRun,
)
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import STORE_RETRY_SECONDS
from fedbbpt.types import (
    Hello,
    Metrics,
    Phase,
    Receipt,
    Report,
    RunState,
    TaskId,
    Update,
    merge,
)
from tests.coordinators import DEADLINE, Bench, Mean, MeanServer, float32, update


def id_of(client: str, round: int) -> TaskId:
    return TaskId("run-1", round, client, Phase.UPDATE if round < 3 else Phase.EVALUATE)


def test_the_run_starts_when_enough_have_joined() -> None:
    bench = Bench(clients=2)
    bench.join("anna")
    assert bench.coordinator.status().state is RunState.WAITING
    assert bench.task("anna") is None
    assert bench.coordinator.next_deadline() is None
    bench.join("berta")
    assert bench.coordinator.status().state is RunState.RUNNING
    assert bench.coordinator.next_deadline() == DEADLINE
    tasks = [bench.task(client) for client in ("anna", "berta")]
    assert [task.id for task in tasks if task] == [id_of("anna", 0), id_of("berta", 0)]
    assert {task.seed for task in tasks if task} == {seeds.derive(5, "task", 0)}


def test_a_client_that_leaves_before_the_start_does_not_count() -> None:
    bench = Bench(clients=2)
    bench.join("anna")
    bench.coordinator.leave(bench.sessions["anna"], bench.now)
    bench.join("berta")
    assert bench.coordinator.status().state is RunState.WAITING
    bench.join("anna")
    assert bench.task("anna") is not None


def test_a_run_searches_measures_and_finishes() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    with pytest.raises(NoResultYet):
        bench.coordinator.result()
    for round in range(3):
        bench.now += 1.0
        bench.answer("anna", z=2.0, weight=1.0)
        assert bench.task("anna") is None
        bench.answer("berta", z=-1.0, weight=3.0)
        assert bench.last == Report(round, 2, 1.0, 0.5, 0.5, 20, 1.0, 0, 0, 8)
    task = bench.task("anna")
    assert task is not None
    assert task.id.phase is Phase.EVALUATE
    assert np.array_equal(task.arrays["z"], float32([-0.25, -0.25]))
    bench.answer("anna", "berta", dev_correct=3)
    assert bench.coordinator.status().state is RunState.FINISHED
    status = bench.coordinator.status()
    assert (status.round, status.rounds, status.queries) == (3, 3, 80)
    assert (bench.last.train_loss, bench.last.dev_accuracy) == (None, 0.75)
    assert bench.coordinator.result().measured == bench.last
    assert bench.coordinator.next_deadline() is None
    assert bench.submit("anna", id_of("anna", 3)) is Receipt.DUPLICATE
    with pytest.raises(RunFinished):
        bench.join("clara")
    with pytest.raises(UnknownRound):
        bench.submit("anna", id_of("anna", 4))


def test_the_best_prompt_is_the_measured_one_with_the_lowest_loss_then_the_highest_accuracy() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    bench.answer("anna", z=1.0, dev_correct=1, dev_loss_sum=6.0)  # measures the start, z = 0
    assert np.array_equal(bench.coordinator.result().z, float32([0, 0]))
    bench.answer("anna", z=2.0, dev_correct=1, dev_loss_sum=5.0)  # measures z = 1
    assert np.array_equal(bench.coordinator.result().z, float32([1, 1]))
    bench.answer("anna", z=3.0, dev_correct=2, dev_loss_sum=5.0)  # measures z = 2
    assert np.array_equal(bench.coordinator.result().z, float32([2, 2]))
    bench.answer("anna", dev_correct=4, dev_loss_sum=5.5)  # measures z = 3
    assert np.array_equal(bench.coordinator.result().z, float32([2, 2]))
    assert bench.coordinator.result().measured.round == 2


def test_the_accuracy_is_unknown_if_one_client_does_not_know_its_own() -> None:
    bench = Bench(clients=2, quorum=2)
    bench.join("anna", "berta")
    blind = update(dev_correct=None)
    bench.answer("anna")
    receipt = bench.coordinator.submit(bench.sessions["berta"], id_of("berta", 0), blind, bench.now)
    assert receipt is Receipt.COUNTED
    assert (bench.last.dev_loss, bench.last.dev_accuracy) == (1.0, None)
    bench.answer("anna", "berta")
    assert bench.last.dev_accuracy == 0.5


def test_without_dev_examples_the_last_prompt_is_the_result() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    for round in range(4):
        bench.answer("anna", z=float(round), dev_loss_sum=0.0, dev_correct=0, dev_examples=0)
    assert bench.last.dev_loss is None
    assert np.array_equal(bench.coordinator.result().z, float32([2, 2]))


def test_with_one_client_a_round_prompts_are_compared_over_as_many_rounds_as_clients() -> None:
    """A client with easy examples does not make a prompt the best: alone, round 1 would have the lowest loss, 0.1."""
    bench = Bench(clients=2, quorum=1, size=1)
    bench.join("anna", "berta")
    found = []
    for round, (dev_loss, count) in enumerate([(8.0, 2), (0.8, 8), (1.0, 4), (0.6, 2)]):
        (client,) = [name for name in ("anna", "berta") if bench.task(name)]
        bench.join(client)  # with other dev examples than before
        bench.answer(client, z=float(round), dev_loss_sum=dev_loss, dev_correct=count // 2, dev_examples=count)
        found.append(bench.coordinator.result())
    pooled = [(4.0, 2), (8.8 / 10, 10), (1.8 / 12, 12), (1.8 / 12, 12)]
    for result, (dev_loss, dev_examples) in zip(found, pooled, strict=True):
        assert result.measured.dev_loss == pytest.approx(dev_loss)
        assert result.measured.dev_examples == dev_examples
    assert [result.measured.round for result in found] == [0, 1, 2, 2], "1.6 / 6 in round 3 is worse"
    assert np.array_equal(found[-1].z, float32([1, 1])), "this is the prompt that round 2 began with"
    assert bench.last.dev_loss == pytest.approx(0.3), "a report has the measurement of its own round"


def test_a_late_joiner_takes_part_from_the_next_round() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    bench.join("clara")
    assert bench.task("clara") is None
    assert bench.submit("clara", id_of("clara", 0)) is Receipt.REFUSED
    bench.answer("anna", "berta")
    bench.answer("anna", "berta", "clara")
    assert bench.last.clients == 3


def test_at_the_deadline_a_quorum_closes_the_round_and_the_missing_lapse_until_they_answer() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "berta", "clara")
    bench.answer("anna", "berta")
    bench.wait(DEADLINE - 1)
    assert bench.round == 0
    bench.wait(1)
    assert (bench.round, bench.last.clients, bench.last.seconds) == (1, 2, DEADLINE)
    assert bench.task("clara") is None
    bench.answer("anna")
    assert bench.submit("clara", id_of("clara", 0)) is Receipt.TOO_LATE
    assert bench.task("clara") is None, "the cohort of the open round does not change"
    bench.answer("berta")
    bench.answer("anna", "berta", "clara")
    assert (bench.last.round, bench.last.clients) == (2, 3)


def test_without_a_quorum_the_deadline_is_extended_and_nothing_is_lost() -> None:
    bench = Bench(clients=2)
    bench.join("anna", "berta")
    bench.coordinator.connected(bench.sessions["berta"])
    bench.answer("anna")
    bench.wait(DEADLINE)
    assert bench.round == 0
    assert bench.coordinator.next_deadline() == 2 * DEADLINE
    bench.answer("berta")
    assert (bench.round, bench.last.clients) == (1, 2)


def test_a_disconnected_client_gives_its_place_to_a_newcomer() -> None:
    bench = Bench(clients=2)
    bench.join("anna", "berta")
    bench.answer("anna")
    bench.join("clara")
    assert bench.task("clara") is None
    bench.wait(DEADLINE)
    assert bench.task("berta") is None
    bench.join("dora")
    bench.answer("dora")
    assert (bench.round, bench.last.clients) == (1, 2)
    assert {member.client_id for member in bench.coordinator.status().members} == {"anna", "clara", "dora"}


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
def test_a_round_whose_clients_died_is_opened_again_for_those_who_joined_since(restarted: bool) -> None:
    bench = Bench(clients=4, quorum=3)
    bench.join("anna", "berta", "clara", "dora")
    bench.answer("dora")
    bench.join("emma", "frida", "greta")
    if restarted:
        bench.restart()
        bench.join("dora", "emma", "frida", "greta")
    for name in ("dora", "emma", "frida"):
        bench.coordinator.connected(bench.sessions[name])
    assert bench.task("emma") is None, "the round has a cohort that may still answer"
    bench.wait(DEADLINE)
    assert bench.round == 0
    assert bench.task("greta") is None, "she has no stream"
    bench.answer("emma", "frida")
    assert (bench.round, bench.last.clients) == (1, 3)


def test_a_round_short_of_a_quorum_takes_a_waiting_client_that_joins_again() -> None:
    bench = Bench(clients=2)
    bench.join("anna", "berta", "clara")
    bench.answer("anna")
    bench.wait(DEADLINE)
    assert bench.task("clara") is None
    bench.join("clara")
    bench.answer("clara")
    assert (bench.round, bench.last.clients) == (1, 2)


def test_a_slow_client_that_lapsed_takes_part_when_the_next_round_lacks_a_quorum() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "berta", "clara")
    bench.coordinator.connected(bench.sessions["clara"])
    bench.answer("anna", "berta")
    bench.wait(DEADLINE)
    assert bench.round == 1 and bench.task("clara") is None
    bench.answer("anna")
    bench.wait(DEADLINE)
    bench.answer("clara")
    assert (bench.round, bench.last.clients) == (2, 2)


def test_a_client_that_left_is_not_asked_when_a_round_is_opened_again() -> None:
    bench = Bench(clients=2)
    bench.join("anna", "berta", "clara")
    bench.coordinator.connected(bench.sessions["clara"])
    bench.coordinator.leave(bench.sessions["clara"], bench.now)
    bench.wait(DEADLINE)
    assert [member.client_id for member in bench.coordinator.status().members] == []


def test_a_sampled_cohort_replaces_a_client_that_left() -> None:
    bench = Bench(clients=4, quorum=2, size=2)
    names = ["anna", "berta", "clara", "dora"]
    bench.join(*names)
    cohort = [name for name in names if bench.task(name)]
    assert len(cohort) == 2
    bench.answer(cohort[0])
    bench.coordinator.leave(bench.sessions.pop(cohort[1]), bench.now)
    (replacement,) = [name for name in bench.sessions if bench.task(name)]
    bench.answer(replacement)
    assert (bench.round, bench.last.clients) == (1, 2)


def test_a_client_that_left_after_answering_stays_counted() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "berta", "clara")
    bench.answer("anna")
    bench.coordinator.leave(bench.sessions["anna"], bench.now)
    bench.coordinator.leave(bench.sessions["anna"], bench.now)
    with pytest.raises(SessionUnknown):
        bench.task("anna")
    bench.answer("berta", "clara")
    assert bench.last.clients == 3
    bench.answer("berta", "clara")
    assert (bench.last.round, bench.last.clients) == (1, 2)


def test_a_lost_receipt_is_sent_again_after_the_round_closed_and_after_a_restart() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    bench.answer("anna", "berta")
    assert bench.round == 1
    assert bench.submit("anna", id_of("anna", 0)) is Receipt.DUPLICATE
    bench.restart()
    bench.join("anna")
    assert bench.submit("anna", id_of("anna", 0)) is Receipt.DUPLICATE
    assert bench.coordinator.status().queries == 20


def test_after_a_restart_the_same_round_continues() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    bench.answer("anna")
    bench.now = 1000.0
    bench.restart()
    with pytest.raises(SessionUnknown):
        bench.task("anna")
    bench.join("anna", "berta")
    assert bench.task("anna") is None
    assert bench.coordinator.next_deadline() == 1000.0 + DEADLINE
    bench.answer("berta")
    assert (bench.round, bench.last.clients) == (1, 2)


def test_a_client_that_joins_again_evicts_its_own_session() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    first = bench.sessions["anna"]
    bench.join("anna")
    with pytest.raises(SessionEvicted):
        bench.coordinator.task_for(first)
    assert bench.task("anna") is not None


def test_the_tasks_version_counts_changes_of_tasks_and_the_status_version_counts_all_changes() -> None:
    bench = Bench(clients=2)
    bench.join("anna")
    bench.join("berta")
    versions, tasks_versions = [bench.coordinator.status_version], [bench.coordinator.tasks_version]

    def note() -> None:
        versions.append(bench.coordinator.status_version)
        tasks_versions.append(bench.coordinator.tasks_version)

    bench.answer("anna")
    note()
    bench.coordinator.connected(bench.sessions["anna"])
    note()
    assert len(set(tasks_versions)) == 1
    bench.answer("berta")
    note()
    bench.join("anna")
    note()
    assert len(set(tasks_versions)) == 3
    assert len(set(versions)) == 5


class TestStop:
    def test_before_the_start(self) -> None:
        bench = Bench()
        bench.join("anna")
        bench.coordinator.stop(bench.now)
        assert bench.coordinator.status().state is RunState.STOPPED
        bench.restart()
        with pytest.raises(RunFinished):
            bench.join("berta")

    def test_after_the_open_round(self) -> None:
        bench = Bench()
        bench.join("anna", "berta")
        bench.answer("anna", "berta")
        bench.coordinator.stop(bench.now)
        bench.coordinator.stop(bench.now)
        assert bench.coordinator.status().state is RunState.RUNNING
        bench.restart()
        bench.join("anna", "berta")
        bench.answer("anna", "berta", dev_correct=4)
        assert bench.coordinator.status().state is RunState.STOPPED
        assert bench.coordinator.result().measured.round == 1
        bench.restart()
        assert bench.coordinator.status().state is RunState.STOPPED

    def test_at_the_deadline_without_a_quorum(self) -> None:
        bench = Bench()
        bench.join("anna", "berta")
        bench.answer("anna", "berta")
        bench.answer("anna")
        bench.coordinator.stop(bench.now)
        bench.wait(DEADLINE)
        assert bench.coordinator.status().state is RunState.STOPPED
        assert bench.coordinator.result().measured.round == 0

    def test_in_the_last_round_changes_nothing(self) -> None:
        bench = Bench(clients=1, quorum=1)
        bench.join("anna")
        for _ in range(3):
            bench.answer("anna")
        bench.coordinator.stop(bench.now)
        bench.answer("anna")
        assert bench.coordinator.status().state is RunState.FINISHED


def test_a_full_disk_keeps_the_receipt_and_closes_later() -> None:
    bench = Bench()
    bench.join("anna", "berta")
    bench.answer("anna")
    bench.store.full = True
    bench.answer("berta")
    assert bench.round == 0
    assert bench.coordinator.next_deadline() == bench.now + STORE_RETRY_SECONDS
    bench.wait(STORE_RETRY_SECONDS)
    assert bench.round == 0
    bench.store.full = False
    bench.wait(STORE_RETRY_SECONDS)
    assert (bench.round, bench.last.clients, bench.last.queries) == (1, 2, 20)


def test_a_client_that_joins_while_the_disk_is_full_is_no_member_and_may_try_again() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.store.full = True
    with pytest.raises(StoreFull):
        bench.join("anna")
    assert bench.coordinator.status().members == ()
    bench.store.full = False
    bench.join("anna")
    assert list(bench.store.members()) == ["anna"]
    assert bench.task("anna") is not None


def test_bytes_are_those_between_two_closes() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    bench.bytes = (100, 200)
    bench.answer("anna")
    bench.bytes = (150, 210)
    bench.answer("anna")
    assert (bench.last.bytes_up, bench.last.bytes_down) == (50, 10)
    status = bench.coordinator.status()
    assert (status.bytes_up, status.bytes_down) == (150, 210)


class Overflowing(MeanServer):
    def step(self, state: Mean, updates: Sequence[Update], seed: int) -> tuple[Mean, Metrics]:
        return Mean(merge(updates).arrays["found"] * np.float64(1e308)), {}


class Singular(MeanServer):
    def step(self, state: Mean, updates: Sequence[Update], seed: int) -> tuple[Mean, Metrics]:
        return Mean(np.linalg.inv(np.zeros((2, 2)))[0]), {}


@pytest.mark.parametrize("method", [Overflowing(), Singular()])
def test_a_step_whose_arithmetic_fails_keeps_the_state_and_the_run(
    method: MeanServer, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(clients=1, quorum=1, method=method)
    bench.join("anna")
    bench.answer("anna", z=1e3)
    task = bench.task("anna")
    assert task is not None
    assert np.array_equal(task.arrays["z"], np.zeros(2, np.float32))
    assert (bench.round, bench.last.train_loss) == (1, None)
    assert "the state stays as it was" in caplog.text


GOOD = update()
BAD_UPDATES: list[tuple[Update, type[FedbbptError], str]] = [
    (replace(GOOD, weight=0.0), InvalidUpdate, "weight: 0.0"),
    (replace(GOOD, weight=math.nan), InvalidUpdate, "weight: nan"),
    (replace(GOOD, weight=math.inf), InvalidUpdate, "weight: inf"),
    (replace(GOOD, arrays={}), InvalidUpdate, r"arrays: \[\]"),
    (replace(GOOD, arrays={**GOOD.arrays, "y": GOOD.arrays["found"]}), InvalidUpdate, "arrays"),
    (replace(GOOD, arrays={"found": np.zeros((2, 1), np.float32)}), InvalidTensor, r"found: shape \(2, 1\)"),
    (replace(GOOD, arrays={"found": np.zeros(2, np.int32)}), InvalidTensor, "found: "),
    (replace(GOOD, arrays={"found": float32([0, np.nan])}), InvalidTensor, "found: NaN"),
    (replace(GOOD, arrays={"found": float32([0, np.inf])}), InvalidTensor, "found: NaN"),
    (update(dev_loss_sum=math.nan), InvalidUpdate, r"measurement\.dev_loss_sum"),
    (update(dev_loss_sum=math.inf), InvalidUpdate, r"measurement\.dev_loss_sum"),
    (update(dev_loss_sum=-1.0), InvalidUpdate, r"measurement\.dev_loss_sum"),
    (update(dev_correct=5), InvalidUpdate, r"measurement\.dev_correct: 5 of 4"),
    (update(dev_correct=-1), InvalidUpdate, r"measurement\.dev_correct"),
    (update(dev_examples=-1, dev_correct=None), InvalidUpdate, r"measurement\.dev_examples"),
    (update(dev_examples=2**33), InvalidUpdate, r"measurement\.dev_examples"),
    (update(queries=-1), InvalidUpdate, r"measurement\.queries"),
    (update(queries=2**63), InvalidUpdate, r"measurement\.queries"),  # the sum would not fit the database
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_UPDATES)
def test_a_bad_update_is_refused_and_the_client_may_try_again(
    bad: Update, error: type[FedbbptError], message: str
) -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    with pytest.raises(error, match=message):
        bench.coordinator.submit(bench.sessions["anna"], id_of("anna", 0), bad, bench.now)
    assert bench.store.updates(0) == {}
    bench.answer("anna")
    assert bench.round == 1


def test_arrays_in_an_evaluation_are_refused() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    for _ in range(3):
        bench.answer("anna")
    with pytest.raises(InvalidUpdate, match="arrays"):
        bench.coordinator.submit(bench.sessions["anna"], id_of("anna", 3), GOOD, bench.now)


BAD_IDS: list[tuple[TaskId, type[FedbbptError]]] = [
    (TaskId("run-2", 0, "anna", Phase.UPDATE), UnknownRun),
    (TaskId("run-1", 1, "anna", Phase.UPDATE), UnknownRound),
    (TaskId("run-1", -1, "anna", Phase.UPDATE), UnknownRound),
    (TaskId("run-1", 0, "berta", Phase.UPDATE), InvalidUpdate),
    (TaskId("run-1", 0, "anna", Phase.EVALUATE), InvalidUpdate),
]


@pytest.mark.parametrize(("task_id", "error"), BAD_IDS)
def test_a_wrong_task_id_is_refused(task_id: TaskId, error: type[FedbbptError]) -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    with pytest.raises(error):
        bench.submit("anna", task_id)
    assert bench.store.updates(0) == {}


def test_no_round_is_known_before_the_start() -> None:
    bench = Bench(clients=2)
    bench.join("anna")
    with pytest.raises(UnknownRound):
        bench.submit("anna", id_of("anna", 0))


HELLO = Hello("anna", "key", 4, frozenset({"float32", "int8"}))
BAD_HELLOS = [
    (replace(HELLO, client_id=""), "client_id"),
    (replace(HELLO, client_id="a" * 129), "client_id"),
    (replace(HELLO, client_id="line\nbreak"), "client_id"),
    (replace(HELLO, client_key=""), "client_key"),
    (replace(HELLO, examples=0), "examples"),
    (replace(HELLO, codecs=frozenset({"int8"})), "codecs: cannot encode float32"),
]


@pytest.mark.parametrize(("hello", "message"), BAD_HELLOS)
def test_a_bad_hello_is_refused(hello: Hello, message: str) -> None:
    bench = Bench()
    with pytest.raises(InvalidHello, match=message):
        bench.coordinator.join(hello, bench.now)
    assert bench.store.members() == {}


@pytest.mark.parametrize(
    ("clients", "quorum", "deadline", "size"),
    [(0, 1, 1.0, None), (2, 3, 1.0, None), (4, 3, 1.0, 2), (2, 0, 1.0, None), (2, 1, 0.0, None)],
)
def test_a_cohort_that_could_never_close_is_refused(
    clients: int, quorum: int, deadline: float, size: int | None
) -> None:
    with pytest.raises(InvalidJob):
        CohortRules(clients, quorum, deadline, size)


NAMES = ["anna", "berta", "clara", "dora"]
names = st.sampled_from(NAMES)


class Walks(RuleBasedStateMachine):
    """Clients join, answer, answer again, leave and fall silent; the coordinator dies and restarts; time passes.

    Kills: counting an answer twice or forgetting one across a crash or a close, a receipt that is not kept, a cohort
    that changes with a restart, closing below the quorum, a run that ends too early or never.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(clients=2, quorum=2, size=3)
        self.counted: set[TaskId] = set()

    @rule(client=names)
    def join(self, client: str) -> None:
        if not self.bench.coordinator.state.ended:
            self.bench.join(client)

    @rule(client=names)
    def answer(self, client: str) -> None:
        if client in self.bench.sessions and (task := self.bench.task(client)):
            assert task.id not in self.counted
            assert self.bench.submit(client, task) is Receipt.COUNTED
            self.counted.add(task.id)

    @rule(client=names)
    def connect(self, client: str) -> None:
        if client in self.bench.sessions:
            self.bench.coordinator.connected(self.bench.sessions[client])

    @rule(client=names)
    def answer_again(self, client: str) -> None:
        last = max((task_id for task_id in self.counted if task_id.client_id == client), default=None)
        if client in self.bench.sessions and last is not None:
            assert self.bench.submit(client, last) is Receipt.DUPLICATE

    @rule(client=names)
    def leave(self, client: str) -> None:
        if client in self.bench.sessions:
            self.bench.coordinator.leave(self.bench.sessions.pop(client), self.bench.now)

    @rule(seconds=st.sampled_from([1.0, DEADLINE]))
    def wait(self, seconds: float) -> None:
        self.bench.wait(seconds)

    @rule()
    def crash(self) -> None:
        before = self.bench.coordinator.status()
        self.bench.restart()
        self.bench.sessions.clear()
        after = self.bench.coordinator.status()
        assert (after.round, after.state, after.last, after.best) == (
            before.round,
            before.state,
            before.last,
            before.best,
        )
        assert [m.submitted for m in after.members] == [m.submitted for m in before.members]

    @invariant()
    def all_that_was_counted_is_in_its_round(self) -> None:
        snapshot = self.bench.store.load()
        reports = snapshot.reports if snapshot else ()
        by_round = Counter(task_id.round for task_id in self.counted)
        for report in reports:
            assert report.clients == by_round.pop(report.round) >= 2
        open_round = len(reports)
        assert by_round.pop(open_round, 0) == len(self.bench.store.updates(open_round))
        assert not by_round
        assert (snapshot.queries if snapshot else 0) == 10 * sum(report.clients for report in reports)
        assert self.bench.coordinator.state.ended == (len(reports) == 4)

    def teardown(self) -> None:
        """Asserts that the run ends if clients join and answer, whatever happened before."""
        self.bench.wait(DEADLINE)
        for _ in range(8):
            for client in NAMES:
                self.join(client)
                self.answer(client)
            self.bench.wait(DEADLINE)
        assert self.bench.coordinator.status().state is RunState.FINISHED


TestWalks = Walks.TestCase
TestWalks.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
