"""Updates that arrive together: one transaction, and an answer for each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedbbpt.errors import FedbbptError, InvalidUpdate, SessionUnknown, StoreFull
from fedbbpt.server.coordinator import Submission
from fedbbpt.types import Receipt, TaskId, Update
from tests.coordinators import Bench, FullStore, update

CLIENTS = ("anna", "bert", "clara", "dora")


@dataclass
class CountingStore(FullStore):
    """A store that remembers which updates came together."""

    together: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

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
    submissions = [submission(made, client) for client in CLIENTS]
    submissions.append(submissions[0])
    answers = made.coordinator.submit_all(submissions, made.now)
    assert answers == [Receipt.COUNTED] * 4 + [Receipt.DUPLICATE]
    assert store.together == [list(CLIENTS)]
    assert made.round == 1


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
