"""A SQLite file with a run: creating it as a whole, and checking it before it is used."""

import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

from fedbbpt.errors import StoreError, StoreFull, StoreLocked, StoreMismatch
from fedbbpt.server.stores.damage import check_version, damaged
from fedbbpt.server.stores.rows import Row, RunRecord
from fedbbpt.server.stores.schema import SCHEMA_VERSION, SEAL, statements
from fedbbpt.server.stores.sql import SqlStore

PAGE_BYTES = 4096

_STATEMENTS = statements(insert)
_UNAVAILABLE = {
    sqlite3.SQLITE_READONLY: ("the file, its folder or the disk is read-only", "one that can be written"),
    sqlite3.SQLITE_PERM: ("access is denied", "a file that the coordinator's user can write"),
    sqlite3.SQLITE_CANTOPEN: ("unable to open the file", "a folder that exists and can be written"),
    sqlite3.SQLITE_IOERR: ("the disk fails", "the system's log says why; the run then continues"),
    sqlite3.SQLITE_TOOBIG: ("an update or the method's state is too large for SQLite", "less than 1 GB"),
    sqlite3.SQLITE_NOMEM: ("out of memory", "free some memory; the run then continues"),
}
"""By the kind of error: what is wrong, and what would be right."""


class SqliteFile(SqlStore):
    """A file that no coordinator has open yet: a draft of a store, or a backup of one."""

    def __init__(self, path: Path, where: Path | None = None) -> None:
        """`where`: the file that errors name, if it is not this one. Raises StoreError."""
        self._where_path = where or path
        with self._translated():
            self._driver = _connect(path)
        super().__init__(_engine(self._driver).connect(), _STATEMENTS, str(self._where_path))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with _translated(self._where_path):
            yield

    def _tables(self, connection: sa.Connection) -> str:
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
        return sha256(repr(connection.exec_driver_sql(query).all()).encode()).hexdigest()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._driver.execute("BEGIN EXCLUSIVE")
        try:
            yield
            self._driver.execute("COMMIT")
        except BaseException:
            if self._driver.in_transaction:  # SQLite may have rolled it back itself, as when the disk is full
                self._driver.execute("ROLLBACK")
            raise

    def _execute(self, statement: sa.Executable, parameters: list[Row]) -> None:
        # Past SQLAlchemy, whose work for a statement takes longer than SQLite's.
        text, names = _compiled(statement)
        self._driver.executemany(text, [[row[name] for name in names] for row in parameters])

    def create(self, rows: Mapping[str, list[Row]]) -> None:
        """Creates the tables, with these rows by table."""
        with self._translated(), self._connection.begin():
            self._connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._create(rows)

    def check(self, run: RunRecord) -> None:
        """Checks SQLite's own structures, and every row. Raises what opening a store raises."""
        with self._translated(), self._connection.begin():
            version = self._connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            names = sa.inspect(self._connection).get_table_names()
            if not names and version <= SCHEMA_VERSION:
                raise damaged("the file has no tables", self._where)
            if SEAL.name not in names and version == 0:
                raise StoreMismatch("a database of another program", where=self._where, fix="another file")
            check_version(version, self._where)
            problem = self._connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if problem != "ok":
                raise damaged(f"the file is corrupt ({problem.splitlines()[-1]})", self._where)
            self._verify(self._connection, run)
            if self._tables(self._connection) != self._seal.tables:
                raise damaged("the definitions of its tables have changed", self._where)


@cache
def _compiled(statement: Any) -> tuple[str, tuple[str, ...]]:
    """Returns the text of a statement in SQLite's dialect, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=sqlite.dialect())
    return str(compiled), tuple(compiled.positiontup)


def write_file(path: Path, rows: Mapping[str, list[Row]]) -> None:
    """Writes a new file with these rows by table: it is complete, and on the disk, as soon as it has its name.

    Raises FileExistsError, StoreError.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with closing(SqliteFile(draft, path)) as file:
            file.create(rows)
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    driver = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
    try:
        settings = ("locking_mode = EXCLUSIVE", "synchronous = FULL", "wal_autocheckpoint = 0", "cell_size_check = ON")
        for setting in (f"page_size = {PAGE_BYTES}", *settings):
            driver.execute(f"PRAGMA {setting}")
    except BaseException:
        driver.close()
        raise
    return driver


def _engine(driver: sqlite3.Connection) -> sa.Engine:
    engine = sa.create_engine("sqlite://", creator=lambda: driver, poolclass=sa.StaticPool)
    # The driver's own transactions exclude DDL and PRAGMA, so transactions begin here instead.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN EXCLUSIVE"))
    return engine


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Translates SQLite's errors to StoreError. The failed transaction has been rolled back."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:  # the last when an error quotes the file
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if isinstance(cause, sqlite3.ProgrammingError):
            raise  # a fault of this module
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind of error
        where = str(path)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreLocked("another process has it open", where=where, fix="stop the other coordinator") from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreFull("the disk is full", where=where, fix="free some space; the run then continues") from error
        if code == sqlite3.SQLITE_NOTADB:
            fix = "another file, or the latest backup"
            raise StoreMismatch("not a database, or damaged at its beginning", where=where, fix=fix) from error
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        # A damaged header may say that the file is of a format that SQLite can only read.
        if code in _UNAVAILABLE and not (code == sqlite3.SQLITE_READONLY and writable):
            what, fix = _UNAVAILABLE[code]
            raise StoreError(f"{what} ({cause})", where=where, fix=fix) from error
        raise damaged(f"the file is corrupt ({cause})", where) from error
