"""The durable state of one run in one SQLite file, through SQLAlchemy Core.

A write-ahead log with a full sync at every commit: an acknowledged update survives a power cut. The file is locked
while it is open, so a second coordinator fails at once. Arrays are stored as safetensors, so the file can be read
without this package; wire messages are never stored.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from fedbbpt.errors import StoreError, StoreFull, StoreLocked, StoreMismatch, StoreTooNew
from fedbbpt.types import Arrays, Measurement, Member, Report, Result, Snapshot, TaskId, Update

T = TypeVar("T")

SCHEMA_VERSION = 3
"""Version 1 stored the metrics of an update by name, version 2 a measurement; version 3 has finalists."""

_schema = sa.MetaData()
_run = sa.Table(
    "run",
    _schema,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("seed", sa.Text, nullable=False),  # an unsigned 64-bit number does not fit an SQLite integer
    sa.Column("job_digest", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)
_snapshot = sa.Table(
    "snapshot",
    _schema,
    sa.Column("only", sa.Integer, sa.CheckConstraint("only = 0"), primary_key=True, default=0),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("finalists", sa.JSON, nullable=False),  # reports, best first
    sa.Column("finalists_z", sa.LargeBinary, nullable=False),  # their prompts, named by place
    sa.Column("queries", sa.Integer, nullable=False),
    sa.Column("stopped_after", sa.Integer),
)
_report = sa.Table(
    "report",
    _schema,
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("measured", sa.JSON, nullable=False),
)
_member = sa.Table(
    "member",
    _schema,
    sa.Column("client_id", sa.Text, primary_key=True),
    sa.Column("client_key", sa.Text, nullable=False),
    sa.Column("examples", sa.Integer, nullable=False),
    sa.Column("since", sa.Integer, nullable=False),
    sa.Column("until", sa.Integer),
    sa.Column("counted", sa.Integer),
)
_update = sa.Table(
    "update",
    _schema,
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("client_id", sa.Text, primary_key=True),
    sa.Column("arrays", sa.LargeBinary, nullable=False),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("measurement", sa.JSON, nullable=False),
    sa.Column("finalists", sa.JSON, nullable=False),  # measurements
)

# Built once: building a statement takes SQLAlchemy ten times as long as SQLite takes to execute it.
_ADD_UPDATE = insert(_update).on_conflict_do_nothing()
_REPLACE_MEMBER = insert(_member).prefix_with("OR REPLACE")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The identity of the run in a database."""

    run_id: str
    seed: int
    job_digest: str
    created: str
    """The time of creation, in ISO 8601."""


class SqliteStore:
    """A `Store` in a file.

    `run` is the record in the file, which may be older than the record that was passed: the run id and the seed of the
    first start remain valid after a restart.
    """

    def __init__(self, path: Path, run: RunRecord) -> None:
        """Opens the file, or creates it for `run`.

        Raises:
            StoreLocked: another coordinator has the file open.
            StoreTooNew: a newer version of this package wrote the file.
            StoreMismatch: the file holds another job, is from an older version, or is not the database of a run.
            StoreError: the file cannot be opened.
        """
        self._path = path
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            poolclass=sa.StaticPool,
            connect_args={"timeout": 0, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _configure)
        # The driver's own transactions exclude DDL and PRAGMA, so transactions begin here instead.
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN EXCLUSIVE"))
        self._engine = engine
        try:
            self.run = self._transact(lambda connection: self._open(connection, run))
        except StoreError:
            self.close()
            raise

    def _open(self, connection: sa.Connection, run: RunRecord) -> RunRecord:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > SCHEMA_VERSION:
            fix = f"a newer fedbbpt, or another file: this one reads up to version {SCHEMA_VERSION}"
            raise StoreTooNew(f"schema version {version}", where=str(self._path), fix=fix)
        if 0 < version < SCHEMA_VERSION:
            fix = "the fedbbpt version that began the run, or another output folder"
            raise StoreMismatch(f"schema version {version} of an older fedbbpt", where=str(self._path), fix=fix)
        if version == 0:
            if sa.inspect(connection).get_table_names():
                raise StoreMismatch("a database of another program", where=str(self._path), fix="another file")
            _schema.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(sa.insert(_run).values(**asdict(run) | {"seed": str(run.seed)}))
        row = connection.execute(sa.select(_run)).one()
        stored = RunRecord(row.run_id, int(row.seed), row.job_digest, row.created)
        if stored.job_digest != run.job_digest:
            fix = "the job that the run began with, or another output folder"
            raise StoreMismatch(f"holds run {stored.run_id} of another job", where=str(self._path), fix=fix)
        return stored

    def _transact(self, work: Callable[[sa.Connection], T]) -> T:
        with _translated(self._path), self._engine.begin() as connection:
            return work(connection)

    def load(self) -> Snapshot | None:
        def work(connection: sa.Connection) -> Snapshot | None:
            row = connection.execute(sa.select(_snapshot)).one_or_none()
            if row is None:
                return None
            reports = connection.execute(sa.select(_report.c.measured).order_by(_report.c.round)).scalars()
            return Snapshot(
                round=row.round,
                state=_load_arrays(row.state),
                finalists=_load_finalists(row.finalists, row.finalists_z),
                queries=row.queries,
                stopped_after=row.stopped_after,
                reports=tuple(Report(**measured) for measured in reports),
            )

        return self._transact(work)

    def members(self) -> Mapping[str, Member]:
        rows = self._transact(lambda connection: connection.execute(sa.select(_member)).all())
        return {row.client_id: Member(**row._mapping) for row in rows}

    def put_member(self, member: Member) -> None:
        self._transact(lambda connection: _replace_members(connection, [member]))

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        rows = [
            {
                "round": task_id.round,
                "client_id": task_id.client_id,
                "arrays": _save_arrays(update.arrays),
                "weight": update.weight,
                "measurement": asdict(update.measurement),
                "finalists": [asdict(measured) for measured in update.finalists],
            }
            for task_id, update in updates
        ]
        self._transact(lambda connection: connection.execute(_ADD_UPDATE, rows))

    def updates(self, round: int) -> Mapping[str, Update]:
        query = sa.select(_update).where(_update.c.round == round).order_by(_update.c.client_id)
        rows = self._transact(lambda connection: connection.execute(query).all())
        return {
            row.client_id: Update(
                _load_arrays(row.arrays),
                row.weight,
                Measurement(**row.measurement),
                finalists=tuple(Measurement(**measured) for measured in row.finalists),
            )
            for row in rows
        }

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        row = {
            "only": 0,
            "round": snapshot.round,
            "state": _save_arrays(snapshot.state),
            "finalists": [asdict(result.measured) for result in snapshot.finalists],
            "finalists_z": _save_arrays({str(place): result.z for place, result in enumerate(snapshot.finalists)}),
            "queries": snapshot.queries,
            "stopped_after": snapshot.stopped_after,
        }

        def work(connection: sa.Connection) -> None:
            connection.execute(insert(_snapshot).values(row).on_conflict_do_update(index_elements=["only"], set_=row))
            # Reports are never changed, only added.
            stored = connection.execute(sa.select(sa.func.max(_report.c.round))).scalar()
            added = [report for report in snapshot.reports if stored is None or report.round > stored]
            if added:
                rows = [{"round": report.round, "measured": asdict(report)} for report in added]
                connection.execute(sa.insert(_report), rows)
            _replace_members(connection, members)
            connection.execute(sa.delete(_update).where(_update.c.round < snapshot.round))

        self._transact(work)

    def close(self) -> None:
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _replace_members(connection: sa.Connection, members: Sequence[Member]) -> None:
    if members:
        connection.execute(_REPLACE_MEMBER, [asdict(member) for member in members])


def _save_arrays(arrays: Arrays) -> bytes:
    # safetensors copies the memory as it is, so a transposed view would come back in another order.
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _load_finalists(reports: list[dict[str, Any]], data: bytes) -> tuple[Result, ...]:
    prompts = _load_arrays(data)
    return tuple(Result(prompts[str(place)], Report(**measured)) for place, measured in enumerate(reports))


def _load_arrays(data: bytes) -> Arrays:
    return safetensors.numpy.load(data)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Translates SQLite's errors to StoreError. The failed transaction has been rolled back."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind of error
        where = str(path)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreLocked("another process has it open", where=where, fix="stop the other coordinator") from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull("the disk is full", where=where, fix="free some space; the run then continues") from error
        if code == sqlite3.SQLITE_NOTADB:
            raise StoreMismatch("not a database", where=where, fix="another file") from error
        raise StoreError(str(cause), where=where) from error
