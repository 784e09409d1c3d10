"""Every store keeps the contract of interfaces.Store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.interfaces import Store
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Array, Arrays, Measurement, Member, Phase, Report, Result, Snapshot, TaskId, Update


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: dict[str, Store] = {"memory": MemoryStore()}
    if request.param == "sqlite":
        made["sqlite"] = SqliteStore(tmp_path / "run.db", RunRecord("run", 2**64 - 1, "digest", "2026-01-01T00:00:00Z"))
    yield made[request.param]
    made[request.param].close()


STATE: Arrays = {
    "mean": np.random.default_rng(0).normal(size=(3, 2)),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "generation": np.asarray(7),
    "sigma": np.asarray(0.1),
    "small": np.asarray([-128, 127], np.int8),
    "half": np.asarray([0.5], np.float16),
    "none": np.zeros((0, 4), np.float32),
}
FIRST = Report(0, 2, dev_loss=0.1 + 0.2, dev_accuracy=None, train_loss=None, queries=10, seconds=1.5)
SECOND = Report(1, 2, 0.25, 0.75, train_loss=1 / 3, queries=20, seconds=0.5, bytes_up=100, bytes_down=200)
Z = np.asarray([0.1, -0.2], np.float32)


def same(left: Arrays, right: Arrays) -> bool:
    def bits(array: Array) -> tuple[str, tuple[int, ...], bytes]:
        return str(array.dtype), array.shape, array.tobytes()

    return {name: bits(array) for name, array in left.items()} == {name: bits(array) for name, array in right.items()}


def finalists(snapshot: Snapshot) -> Arrays:
    return {str(place): result.z for place, result in enumerate(snapshot.finalists)}


def task(round: int, client_id: str) -> TaskId:
    return TaskId("run", round, client_id, Phase.UPDATE)


def update(value: float) -> Update:
    return Update(
        {"sum": np.asarray([value, -value], np.float32)},
        weight=value,
        measurement=Measurement(0.1 * value, 3, None, 7),
        finalists=(Measurement(0.2 * value, 3, 2), Measurement(1 / 3, 3, 0)),
    )


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.load() is None
    assert store.members() == {}
    assert store.updates(0) == {}


def test_a_snapshot_comes_back_bit_for_bit(store: Store) -> None:
    store.commit(Snapshot(2, STATE, (Result(Z, SECOND), Result(-Z, FIRST)), 30, 4, (FIRST, SECOND)))
    loaded = store.load()
    assert loaded is not None
    assert same(loaded.state, STATE)
    assert same(finalists(loaded), {"0": Z, "1": -Z})
    assert (loaded.round, loaded.queries, loaded.stopped_after) == (2, 30, 4)
    assert [result.measured for result in loaded.finalists] == [SECOND, FIRST]
    assert loaded.reports == (FIRST, SECOND)


def test_the_last_snapshot_replaces_the_earlier_ones(store: Store) -> None:
    store.commit(Snapshot(0, {"mean": np.zeros(2)}))
    store.commit(Snapshot(1, {"mean": np.ones(2)}, (Result(Z, FIRST),), 10, None, (FIRST,)))
    store.commit(Snapshot(2, STATE, (Result(-Z, SECOND),), 30, None, (FIRST, SECOND)))
    loaded = store.load()
    assert loaded is not None
    assert loaded.round == 2
    assert same(loaded.state, STATE)
    assert same(finalists(loaded), {"0": -Z})
    assert loaded.reports == (FIRST, SECOND)


def test_members_are_replaced_by_id(store: Store) -> None:
    first, second = Member("b", "key", 5, since=0), Member("a", "other", 7, since=1, until=3, counted=2)
    store.put_members([first])
    store.put_members([second])
    assert store.members() == {"a": second, "b": first}
    store.put_members([replace(first, until=4)])
    assert store.members() == {"a": second, "b": replace(first, until=4)}


def test_a_commit_stores_members_too(store: Store) -> None:
    store.put_members([Member("a", "key", 5, since=0)])
    changed = [Member("a", "key", 5, since=0, counted=0), Member("b", "key", 5, since=1)]
    store.commit(Snapshot(1, STATE), changed)
    assert store.members() == {member.client_id: member for member in changed}


def test_the_first_update_of_a_task_stays(store: Store) -> None:
    store.put_updates([(task(0, "b"), update(1.0)), (task(0, "a"), update(2.0))])
    store.put_updates([(task(0, "b"), update(3.0)), (task(0, "c"), update(4.0)), (task(0, "c"), update(5.0))])
    stored = store.updates(0)
    assert sorted(stored) == ["a", "b", "c"]
    for client_id, expected in (("a", update(2.0)), ("b", update(1.0)), ("c", update(4.0))):
        assert same(stored[client_id].arrays, expected.arrays)
        assert stored[client_id].weight == expected.weight
        assert (stored[client_id].measurement, stored[client_id].finalists) == (
            expected.measurement,
            expected.finalists,
        )


def test_an_update_may_have_no_arrays(store: Store) -> None:
    store.put_updates([(task(0, "a"), Update({}, 1.0, Measurement(1.0)))])
    assert store.updates(0)["a"].arrays == {}


def test_a_commit_forgets_earlier_rounds_only(store: Store) -> None:
    for round in (0, 1, 2):
        store.put_updates([(task(round, "a"), update(1.0))])
    store.commit(Snapshot(1, STATE))
    assert [list(store.updates(round)) for round in (0, 1, 2)] == [[], ["a"], ["a"]]
