"""Updates and joins that arrive together: one transaction, and an answer for each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedbbpt.errors import ClientIdTaken, FedbbptError, InvalidHello, InvalidUpdate, SessionUnknown, StoreFull
from fedbbpt.server.coordinator import STORE_RETRY_SECONDS
from fedbbpt.server.hosted_run import Submission
from fedbbpt.types import Hello, Member, Receipt, RunState, Snapshot, TaskId, Update
from tests.coordinators import Bench, FullStore, update

CLIENTS = ("anna", "bert", "clara", "dora")


@dataclass
class CountingStore(FullStore):
    """A store that remembers which updates came together."""

    together: list[list[str]] = field(default_factory=list)
    joined: list[list[str]] = field(default_factory=list)
    full_for_snapshots: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        if self.full_for_snapshots:
            raise StoreFull("the disk is full")
        super().commit(snapshot, members)

    def put_members(self, members: Sequence[Member]) -> None:
        super().put_members(members)
        self.joined += [[member.client_id for member in members]] if members else []

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        if self.full:
            raise StoreFull("the disk is full")
        self.together.append([task_id.client_id for task_id, _ in updates])
        super().put_updates(updates)


def bench() -> tuple[Bench, CountingStore]:
    store = CountingStore()
    made = Bench(clients=4, quorum=4, store=store)
    made.join(*CLIENTS)
    return made, store


def submission(bench: Bench, client: str, weight: float = 2.0) -> Submission:
    task = bench.task(client)
    assert task is not None
    return Submission(bench.sessions[client], task.id, update(weight=weight))


def test_updates_that_arrive_together_are_stored_together() -> None:
    made, store = bench()
    submissions = [submission(made, client) for client in CLIENTS[:3]]
    submissions.append(submissions[0])
    answers = made.coordinator.submit_all(submissions, made.now)
    assert answers == [Receipt.COUNTED] * 3 + [Receipt.DUPLICATE]
    assert store.together == [list(CLIENTS[:3])]
    assert made.round == 0


def test_updates_that_complete_a_round_are_not_stored_themselves() -> None:
    made, store = bench()
    first = submission(made, "anna")
    made.coordinator.submit_all([first], made.now)
    rest = [submission(made, client) for client in CLIENTS[1:]]
    assert made.coordinator.submit_all(rest, made.now) == [Receipt.COUNTED] * 3
    assert store.together == [["anna"]]
    assert (made.round, made.last.clients) == (1, 4)
    assert made.coordinator.submit_all([first, *rest], made.now) == [Receipt.DUPLICATE] * 4


def test_updates_that_complete_a_round_are_stored_if_it_cannot_be_closed() -> None:
    made, store = bench()
    submissions = [submission(made, client) for client in CLIENTS]
    store.full_for_snapshots = True
    assert made.coordinator.submit_all(submissions, made.now) == [Receipt.COUNTED] * 4
    assert (store.together, made.round) == ([list(CLIENTS)], 0)
    store.full_for_snapshots = False
    made.wait(STORE_RETRY_SECONDS)
    assert (made.round, made.last.clients) == (1, 4)


def test_a_bad_update_is_refused_alone() -> None:
    made, store = bench()
    good = [submission(made, client) for client in CLIENTS]
    bad = [replace(good[1], session="stale"), submission(made, "bert", weight=0.0)]
    answers = made.coordinator.submit_all([good[0], *bad, good[2]], made.now)
    assert [type(answer) for answer in answers] == [Receipt, SessionUnknown, InvalidUpdate, Receipt]
    assert store.together == [["anna", "clara"]]
    assert made.coordinator.submit_all([good[1], good[3]], made.now) == [Receipt.COUNTED] * 2
    assert made.round == 1


def test_a_full_disk_refuses_all_and_changes_nothing() -> None:
    made, store = bench()
    submissions = [submission(made, client) for client in CLIENTS]
    before = made.coordinator.status()
    store.full = True
    answers = made.coordinator.submit_all(submissions, made.now)
    assert all(isinstance(answer, FedbbptError) and type(answer) is StoreFull for answer in answers)
    assert made.coordinator.status() == before
    store.full = False
    assert made.coordinator.submit_all(submissions, made.now) == [Receipt.COUNTED] * 4
    assert made.round == 1


def hello(client: str, key: str = "key", codec: str = "float32") -> Hello:
    return Hello(client, key, 4, frozenset({codec}))


def test_clients_that_join_together_are_stored_together() -> None:
    store = CountingStore()
    made = Bench(clients=4, quorum=4, store=store)
    hellos = [*map(hello, CLIENTS), hello("anna", "another"), hello("emil", codec="float16"), hello("bert")]
    answers = made.coordinator.join_all(hellos, made.now)
    refused = [ClientIdTaken, InvalidHello]
    assert [type(answer) for answer in answers] == [tuple] * 4 + refused + [tuple]
    assert store.joined == [list(CLIENTS)]
    assert made.coordinator.state is RunState.RUNNING
    sessions = [answer[0] for answer in answers if isinstance(answer, tuple)]
    tasks = [made.coordinator.task_for(session) for session in (sessions[0], *sessions[2:])]
    assert [task.id.client_id for task in tasks if task is not None] == ["anna", "clara", "dora", "bert"]


def test_clients_that_join_together_enter_a_round_only_while_it_lacks_a_quorum() -> None:
    made = Bench(clients=2, quorum=2)
    made.join("anna", "bert")
    made.coordinator.leave(made.sessions["bert"], made.now)
    answers = made.coordinator.join_all([hello("clara"), hello("dora")], made.now)
    tasks = [made.coordinator.task_for(answer[0]) for answer in answers if isinstance(answer, tuple)]
    assert [task is not None for task in tasks] == [True, False]


def test_a_full_disk_lets_nobody_join() -> None:
    made, store = bench()
    store.full = True
    answers = made.coordinator.join_all([hello("emil"), hello("fred", codec="float16")], made.now)
    assert [type(answer) for answer in answers] == [StoreFull, InvalidHello]
    assert {member.client_id for member in made.coordinator.members()} == set(CLIENTS)
