"""A store in an SQL database, through SQLAlchemy Core. A subclass opens the database, and translates its errors.

Every transaction rewrites the seal, so that opening finds any row that is not what the last transaction left.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa

from fedbbpt.errors import StoreMismatch
from fedbbpt.server.stores import rows
from fedbbpt.server.stores.damage import check_version, damaged
from fedbbpt.server.stores.rows import Row, RunRecord
from fedbbpt.server.stores.schema import MEMBER, METADATA, REPORT, RUN, SEAL, SEALED, SNAPSHOT, UPDATE, Statements
from fedbbpt.server.stores.seal import Key, Ledger, Seal, seal_of, seal_row, version_of
from fedbbpt.types import Member, Snapshot, TaskId, Update

T = TypeVar("T")

_KEYS = {table.name: tuple(column.name for column in table.primary_key) for table in (*SEALED, SEAL)}


class SqlStore:
    """Implements `Store`. `run` is the record in the store, which may be older than the record that was passed: the
    run id and the seed of the first start remain valid after a restart.
    """

    run: RunRecord
    replaceable: ClassVar[bool] = False
    """Whether another coordinator may take the store while this one lives."""

    def __init__(self, connection: sa.Connection, statements: Statements, where: str, writer: str = "") -> None:
        """
        Args:
            connection: the only connection to the database.
            statements: the statements in its dialect.
            where: the database in a user's words.
            writer: the name of this object, random, if others may take its place.
        """
        self._connection, self._statements, self._where, self._writer = connection, statements, where, writer
        self._seal, self._ledger = Seal(0, ""), Ledger({})
        self._reported = -1
        """The last round whose report is stored."""
        self._round = -1
        """The round of the stored snapshot."""

    def ask(self) -> None:
        """Asks the database for a sign of life. Raises StoreReplaced, StoreError."""
        self._ready()
        self._transact(lambda connection: connection.execute(sa.text("SELECT 1")))

    def _translated(self) -> AbstractContextManager[None]:
        """Translates the database's errors to StoreError."""
        raise NotImplementedError

    def _ready(self) -> None:
        """Prepares the connection, before any transaction and before anything is computed from earlier ones."""

    def _transact(self, work: Callable[[sa.Connection], T]) -> T:
        with self._translated(), self._connection.begin():
            return work(self._connection)

    # Opening

    def _tables(self, connection: sa.Connection) -> str:
        """Returns a digest of the definitions of the tables; empty where the database guards them itself."""
        return ""

    def _create(self, contents: Mapping[str, list[Row]]) -> None:
        """Creates the tables with these rows by table, in one transaction."""
        self._write(contents, open=False, create=True)

    def _verify(self, connection: sa.Connection, run: RunRecord) -> None:
        """Reads every row, one after another, and adopts what the store holds.

        Raises:
            StoreDamaged: the rows are not those that the last transaction left.
            StoreTooNew, StoreMismatch: the store is of another version, or of another job.
        """
        sealed = self._read(connection, SEAL.name)
        if len(sealed) != 1:
            raise damaged("the seal of its last transaction is missing", self._where)
        check_version(version_of(sealed[0]), self._where)
        checksums: dict[Key, bytes] = {}
        runs: list[Row] = []
        for table in SEALED:
            for row in self._checked(table.name, connection.execute(self._statements.read[table.name])):
                checksums[_key(table.name, row)] = row["checksum"]
                if table is RUN:
                    runs.append(row)
                elif table is SNAPSHOT:
                    self._round = max(self._round, json.loads(row["record"])["round"])
                elif table is REPORT:
                    self._reported = max(self._reported, row["round"])
        self._seal, self._ledger = seal_of(sealed[0]), Ledger(checksums)
        if self._ledger.total != self._seal.total or len(runs) != 1:
            raise damaged("rows are missing, or are those of another time", self._where)
        self.run = rows.run_of(runs[0])
        if self.run.job_digest != run.job_digest:
            fix = "the job that the run began with, or another output folder"
            raise StoreMismatch(f"holds run {self.run.run_id} of another job", where=self._where, fix=fix)

    # Reading

    def rows(self) -> Mapping[str, list[Row]]:
        """Returns all rows by table, as of one transaction. Raises StoreError."""
        self._ready()
        return self._transact(lambda connection: {table.name: self._read(connection, table.name) for table in SEALED})

    def load(self) -> Snapshot | None:
        def work(connection: sa.Connection) -> Snapshot | None:
            stored = self._read(connection, SNAPSHOT.name)
            reports = map(rows.report_of, self._read(connection, REPORT.name))
            return rows.snapshot_of(stored[0], tuple(reports)) if stored else None

        self._ready()
        return self._transact(work)

    def members(self) -> Mapping[str, Member]:
        self._ready()
        stored = self._transact(lambda connection: self._read(connection, MEMBER.name))
        return {row["client_id"]: rows.member_of(row) for row in stored}

    def updates(self, round: int) -> Mapping[str, Update]:
        self._ready()
        found = self._transact(lambda connection: connection.execute(self._statements.answered, {"round": round}).all())
        return _StoredUpdates([client_id for (client_id,) in found], lambda client_id: self._update(round, client_id))

    def _update(self, round: int, client_id: str) -> Update:
        key = {"round": round, "client_id": client_id}
        self._ready()
        (row,) = self._transact(
            lambda connection: list(self._checked(UPDATE.name, connection.execute(self._statements.read_update, key)))
        )
        return rows.update_of(row)

    def _read(self, connection: sa.Connection, table: str) -> list[Row]:
        return list(self._checked(table, connection.execute(self._statements.read[table])))

    def _checked(self, table: str, found: sa.CursorResult[Any]) -> Iterator[Row]:
        for each in found.mappings():
            row = dict(each)
            columns = {name: value for name, value in row.items() if name != "checksum"}
            if row["checksum"] != rows.checksum(table, columns):
                key = ", ".join(f"{name} {row[name]!r}" for name in _KEYS[table])
                raise damaged(f"the row of {table} with {key} does not match its checksum", self._where)
            yield row

    # Writing

    def _writing(self) -> AbstractContextManager[object]:
        """Returns a transaction for statements that `_execute` executes."""
        return self._connection.begin()

    def _execute(self, statement: sa.Executable, parameters: list[Row]) -> None:
        """Executes a statement for each of the parameters, inside a transaction."""
        self._connection.execute(statement, parameters)

    def put_members(self, members: Sequence[Member]) -> None:
        self._ready()
        if members:
            self._write({MEMBER.name: list(map(rows.member_row, members))})

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        self._ready()
        new: dict[Key, Row] = {}
        for task_id, update in updates:
            key = (UPDATE.name, task_id.round, task_id.client_id)
            if key not in self._ledger.updates and key not in new:
                new[key] = rows.update_row(task_id, update)
        if new:
            self._write({UPDATE.name: list(new.values())})

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        self._ready()
        # Reports are never changed, only added.
        added = list(takewhile(lambda report: report.round > self._reported, reversed(snapshot.reports)))[::-1]
        changed = {
            SNAPSHOT.name: [rows.snapshot_row(snapshot)],
            REPORT.name: list(map(rows.report_row, added)),
            MEMBER.name: list(map(rows.member_row, members)),
        }
        # Updates of earlier rounds may count in this one, until it is over.
        self._write(changed, forget_before=snapshot.round if snapshot.round > self._round else 0)
        self._round = snapshot.round
        if added:
            self._reported = added[-1].round

    def _write(
        self, changed: Mapping[str, list[Row]], *, forget_before: int = 0, open: bool = True, create: bool = False
    ) -> None:
        """Puts rows by table and deletes the updates of earlier rounds, in one transaction that renews the seal."""
        put = {_key(table, row): row["checksum"] for table in changed for row in changed[table]}
        forgotten = [key for key, round in self._ledger.updates.items() if round < forget_before]
        total = self._ledger.total_after(put, forgotten)
        number = self._seal.transactions + 1
        seal = replace(self._seal, transactions=number, total=total, open=open, writer=self._writer)

        with self._translated(), self._connection.begin() if create else self._writing():
            if create:
                METADATA.create_all(self._connection)
                seal = replace(seal, tables=self._tables(self._connection))
            for table, changes in changed.items():
                if changes:
                    self._execute(self._statements.put[table], changes)
            if forgotten:
                self._execute(self._statements.forget_updates, [{"round": forget_before}])
            self._execute(self._statements.put[SEAL.name], [seal_row(seal)])
        self._seal = seal
        self._ledger.adopt(put, forgotten, total)

    def backup(self, path: Path) -> None:
        """Writes all rows into a new SQLite file, whatever the database is. Raises FileExistsError, StoreError."""
        raise NotImplementedError

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()


def new_run(run: RunRecord) -> Mapping[str, list[Row]]:
    """Returns the rows by table of a run that has not begun."""
    return {RUN.name: [rows.run_row(run)]}


def _key(table: str, row: Row) -> Key:
    return (table, *(row[name] for name in _KEYS[table]))


class _StoredUpdates(Mapping[str, Update]):
    """The updates of a round, each of which is read when it is asked for: together they may exceed the memory."""

    def __init__(self, client_ids: Sequence[str], read: Callable[[str], Update]) -> None:
        self._client_ids, self._read = dict.fromkeys(client_ids), read

    def __getitem__(self, client_id: str) -> Update:
        if client_id not in self._client_ids:
            raise KeyError(client_id)
        return self._read(client_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._client_ids)

    def __len__(self) -> int:
        return len(self._client_ids)
