"""The SQLite file: which files are refused, and that a failed write loses nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import StoreError, StoreFull, StoreLocked, StoreMismatch, StoreTooNew
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.schema import SCHEMA_VERSION
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Measurement, Member, Phase, Snapshot, TaskId, Update

RUN = RunRecord("run-1", 2**64 - 1, "digest", "2026-01-01T00:00:00+00:00")
SNAPSHOT = Snapshot(1, {"mean": np.ones(3)})
MEMBER = Member("a", "key", 5, since=0)
TASK = TaskId("run-1", 1, "a", Phase.UPDATE)
UPDATE = Update({"sum": np.ones(3, np.float32)}, 5.0, Measurement(1.0, 2, 1, 30))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Returns the database of a coordinator that has ended."""
    path = tmp_path / "run.db"
    with closing(SqliteStore(path, RUN)) as store:
        store.commit(SNAPSHOT, [MEMBER])
        store.put_updates([(TASK, UPDATE)])
    yield path


def test_everything_survives_a_restart(path: Path) -> None:
    with closing(SqliteStore(path, replace(RUN, run_id="another", seed=0, created="later"))) as store:
        assert store.run == RUN
        loaded = store.load()
        assert loaded is not None
        assert loaded.round == 1
        assert np.array_equal(loaded.state["mean"], np.ones(3))
        assert store.members() == {"a": MEMBER}
        stored = store.updates(1)["a"]
        assert np.array_equal(stored.arrays["sum"], UPDATE.arrays["sum"])
        assert (stored.weight, stored.measurement) == (UPDATE.weight, UPDATE.measurement)


def test_commits_are_synced_in_full(path: Path) -> None:
    with closing(SqliteStore(path, RUN)) as store:
        pragmas = {
            name: store._driver.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "locking_mode")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}


def test_a_second_coordinator_is_refused_while_the_first_is_running(path: Path) -> None:
    with closing(SqliteStore(path, RUN)) as store:
        with pytest.raises(StoreLocked, match=r"run\.db: another process has it open"):
            SqliteStore(path, RUN)
        assert store.members() == {"a": MEMBER}
    SqliteStore(path, RUN).close()


def test_another_job_is_refused(path: Path) -> None:
    with pytest.raises(StoreMismatch, match="run-1 of another job"):
        SqliteStore(path, replace(RUN, job_digest="different"))
    SqliteStore(path, RUN).close()


def test_a_newer_schema_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreTooNew, match=f"schema version {SCHEMA_VERSION + 1}"):
        SqliteStore(path, RUN)


def test_an_older_schema_is_refused(path: Path) -> None:
    """Kills: reading the rows of an older version as if they had today's columns."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    with pytest.raises(StoreMismatch, match=f"schema version {SCHEMA_VERSION - 1} of an older fedbbpt"):
        SqliteStore(path, RUN)


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreMismatch, match="another program"):
        SqliteStore(path, RUN)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be read as the header of one\n" * 10)
    with pytest.raises(StoreMismatch, match="not a database"):
        SqliteStore(path, RUN)


def test_a_path_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read and write \S*/missing"):
        SqliteStore(tmp_path / "missing" / "run.db", RUN)


def test_a_full_disk_loses_nothing_and_the_store_continues(path: Path) -> None:
    with closing(SqliteStore(path, RUN)) as store:
        (pages,) = store._driver.execute("PRAGMA page_count").fetchone()
        store._driver.execute(f"PRAGMA max_page_count = {pages}")
        large = np.ones(100_000)
        with pytest.raises(StoreFull):
            store.commit(Snapshot(2, {"mean": large}), [replace(MEMBER, counted=1)])
        with pytest.raises(StoreFull):
            store.put_updates([(replace(TASK, client_id="b"), Update({"sum": large}, 1.0))])
        loaded = store.load()
        assert loaded is not None
        assert (loaded.round, store.members(), list(store.updates(1))) == (1, {"a": MEMBER}, ["a"])

        store._driver.execute("PRAGMA max_page_count = 100000")
        store.commit(Snapshot(2, {"mean": large}), [replace(MEMBER, counted=1)])
        loaded = store.load()
        assert loaded is not None
        assert (loaded.round, store.members(), list(store.updates(1))) == (2, {"a": replace(MEMBER, counted=1)}, [])


def test_a_file_that_was_moved_or_replaced_takes_no_writes(path: Path) -> None:
    """Kills: writing on into a file that has no name any more."""
    with closing(SqliteStore(path, RUN)) as store:
        moved = path.rename(path.with_name("moved.db"))
        for replaced in (False, True):
            if replaced:
                path.touch()
            with pytest.raises(StoreError, match="moved, deleted or replaced"):
                store.put_members([replace(MEMBER, client_id="b")])
        moved.replace(path)
        store.put_members([replace(MEMBER, client_id="b")])
        assert sorted(store.members()) == ["a", "b"]
