"""Every store keeps the contract of interfaces.Store."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fedbbpt.errors import StoreDamaged, StoreError
from fedbbpt.interfaces import Store
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.stores.opening import open_store
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sql import SqlStore
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Array, Arrays, Measurement, Member, Phase, Report, Result, Snapshot, TaskId, Update
from tests.slow import slow_except

RUN = RunRecord("run", 2**64 - 1, "digest", "2026-01-01T00:00:00Z")


class Database:
    """A database that a store can be in."""

    def __init__(self, location: str, engine: sa.Engine) -> None:
        self._location, self._engine = location, engine

    def open(self) -> SqlStore:
        return open_store(self._location, RUN)

    def execute(self, statement: str, **values: object) -> list[dict[str, object]]:
        """Executes a statement on a database that no coordinator has open, and returns the rows that it reads."""
        with self._engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []


def made(kind: str, request: pytest.FixtureRequest, folder: Path) -> Database:
    if kind == "sqlite":
        path = folder / "run.db"
        return Database(str(path), sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool))
    url = request.getfixturevalue("postgres").url(f"s{secrets.token_hex(4)}")
    return Database(url, sa.create_engine(url.replace("://", "+psycopg://"), poolclass=sa.NullPool))


@pytest.fixture(params=slow_except(["sqlite", "postgresql"], "sqlite"))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return made(request.param, request, tmp_path)


@pytest.fixture
def durable(database: Database) -> Iterator[SqlStore]:
    with closing(database.open()) as store:
        yield store


@pytest.fixture(params=slow_except(["memory", "sqlite", "postgresql"], "memory", "sqlite"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    memory = request.param == "memory"
    with closing(MemoryStore() if memory else made(request.param, request, tmp_path).open()) as store:
        yield store


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


def fill(store: Store) -> None:
    store.put_members([Member("a", "key", 5, since=0), Member("b", "key", 5, since=1)])
    store.commit(Snapshot(2, STATE, (Result(Z, SECOND),), 30, None, (FIRST, SECOND)))
    store.put_updates([(task(2, "a"), update(1.0)), (task(2, "b"), update(2.0))])


def contents(store: Store) -> list[object]:
    snapshot = store.load()
    assert snapshot is not None
    arrays = [snapshot.state, finalists(snapshot), *(each.arrays for each in store.updates(2).values())]
    bits = [sorted((name, str(a.dtype), a.shape, a.tobytes()) for name, a in each.items()) for each in arrays]
    updates = [replace(each, arrays={}) for each in store.updates(2).values()]
    return [replace(snapshot, state={}, finalists=()), store.members(), list(store.updates(2)), updates, bits]


def test_a_closed_store_opens_with_the_same_contents(durable: SqlStore, database: Database) -> None:
    fill(durable)
    expected = contents(durable)
    durable.close()
    with closing(database.open()) as again:
        assert contents(again) == expected


def test_updates_are_stored_together_or_not_at_all(durable: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction fails after the updates and before the seal."""
    fill(durable)
    before = contents(durable)
    broken = {**durable._statements.put, "seal": sa.text("DELETE FROM missing")}
    with monkeypatch.context() as patched:
        patched.setattr(durable, "_statements", replace(durable._statements, put=broken))
        with pytest.raises(StoreError):
            durable.put_updates([(task(2, "c"), update(1.0)), (task(2, "d"), update(2.0))])
    assert contents(durable) == before
    durable.put_updates([(task(2, "c"), update(3.0)), (task(2, "d"), update(2.0))])
    assert durable.updates(2)["c"].weight == 3.0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET record = replace(record, '0', '1')",
        "UPDATE snapshot SET record = replace(record, '30', '31')",
        "UPDATE snapshot SET state = finalists_z",
        "UPDATE report SET record = replace(record, '10', '11') WHERE round = 0",
        "UPDATE member SET client_id = 'c' WHERE client_id = 'a'",
        "UPDATE \"update\" SET record = replace(record, '1.0', '2.0') WHERE client_id = 'a'",
        "UPDATE seal SET record = replace(record, '1', '2')",
        "DELETE FROM snapshot",
        "DELETE FROM report WHERE round = 0",
        "DELETE FROM member WHERE client_id = 'b'",
        "DELETE FROM \"update\" WHERE client_id = 'a'",
        "DELETE FROM seal",
    ],
)
def test_a_changed_or_missing_row_is_refused(durable: SqlStore, database: Database, statement: str) -> None:
    fill(durable)
    durable.close()
    database.execute(statement)
    with pytest.raises(StoreDamaged, match="restore the latest backup"):
        database.open()


def test_a_row_of_an_earlier_time_is_refused(durable: SqlStore, database: Database) -> None:
    """Kills: checksums of single rows only, which an old row matches."""
    fill(durable)
    durable.close()
    (old,) = database.execute("SELECT record, checksum FROM member WHERE client_id = 'a'")
    with closing(database.open()) as store:
        store.put_members([Member("a", "key", 5, since=0, until=3)])
    database.execute("UPDATE member SET record = :record, checksum = :checksum WHERE client_id = 'a'", **old)
    with pytest.raises(StoreDamaged, match="rows are missing, or are those of another time"):
        database.open()


def test_a_backup_is_equal_and_independent(durable: SqlStore, tmp_path: Path) -> None:
    fill(durable)
    expected = contents(durable)
    durable.backup(tmp_path / "backup.db")
    durable.commit(Snapshot(3, STATE))
    with closing(SqliteStore(tmp_path / "backup.db", RUN)) as restored:
        assert contents(restored) == expected
        restored.commit(Snapshot(3, STATE))
    with pytest.raises(FileExistsError):
        durable.backup(tmp_path / "backup.db")
