"""A store in one SQLite file, for a coordinator on one machine.

A write-ahead log with a full sync at every commit: an acknowledged update survives a power cut. The file is locked
while it is open, so a second coordinator fails at once. When a round has been committed, the log is copied into the
file, at most once a second: it costs three syncs. Until the file is closed, it says that a log belongs to it. So a file
that lost its log is refused.
"""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from fedbbpt.errors import StoreDamaged, StoreError, StoreFull, StoreLocked, StoreMismatch
from fedbbpt.server.stores.damage import check_version, damaged
from fedbbpt.server.stores.log_check import check_log
from fedbbpt.server.stores.rows import Row, RunRecord
from fedbbpt.server.stores.schema import SCHEMA_VERSION, SEAL, statements
from fedbbpt.server.stores.sql import SqlStore
from fedbbpt.types import Member, Snapshot

T = TypeVar("T")
log = logging.getLogger(__name__)

PAGE_BYTES = 4096
CHECKPOINT_SECONDS = 1.0
"""The log is copied into the file at most this often."""

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

    def create(self, run: RunRecord) -> None:
        """Creates the tables, for `run`."""
        with self._translated(), self._connection.begin():
            self._connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._create(run)

    def mark_closed(self) -> None:
        """Marks the file as one to which no log belongs."""
        self._write({}, open=False)

    def check(self, run: RunRecord | None) -> None:
        """Checks SQLite's own structures, and every row. Raises what opening a store raises."""
        with self._translated(), self._connection.begin():
            version = self._connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            names = sa.inspect(self._connection).get_table_names()
            if not names:
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


class SqliteStore(SqliteFile):
    """A `Store` in a file."""

    def __init__(self, path: Path, run: RunRecord) -> None:
        """Opens the file, or creates it for `run`.

        Raises:
            StoreLocked: another coordinator has the file open.
            StoreTooNew: a newer version of this package wrote the file.
            StoreMismatch: the file holds another job, is from an older version, or is not the database of a run.
            StoreDamaged: the file or its log is not as a coordinator left it, or one of the two is missing.
            StoreError: the file cannot be opened.
        """
        self._log, self._tidy = path.with_name(f"{path.name}-wal"), True
        _check_access(path.parent, path)
        if not path.exists():
            self._begin(path, run)
        for part in filter(Path.exists, (path, self._log)):
            _check_access(part, path)
        if not path.stat().st_size:
            raise damaged("the file is empty", str(path))
        if logged := self._log.exists():
            check_log(self._log, PAGE_BYTES)
        try:
            super().__init__(path)
            self._open(run, logged)
        except BaseException:
            if logged:
                self._log.touch()  # SQLite copies the log into the file when it closes it, and deletes the log
            raise

    def _open(self, run: RunRecord, logged: bool) -> None:
        try:
            self.check(run)
            if self._seal.open and not logged:
                what = f"its write-ahead log {self._log.name} is missing, so its latest transactions would be lost"
                fix = f"copy {self._log.name} next to it, or restore the latest backup"
                raise StoreDamaged(what, where=self._where, fix=fix)
            with self._translated():
                self._driver.execute("PRAGMA journal_mode = WAL")
            self._write({})
            self._checkpoint()
        except BaseException:
            SqlStore.close(self)
            raise

    def _begin(self, path: Path, run: RunRecord) -> None:
        """Creates the file under another name first, so that it is complete as soon as it exists."""
        if self._log.exists():
            what = f"the file is missing, and its write-ahead log {self._log.name} is there"
            raise StoreDamaged(what, where=str(path), fix="the file of this log, or remove the log to begin a new run")
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with closing(SqliteFile(draft, path)) as file:
                file.create(run)
            os.link(draft, path)
        except FileExistsError:
            log.info("another coordinator has just created %s", path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def _transact(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            return super()._transact(work)
        except StoreError:
            self._tidy = False  # the log may now end with frames of a transaction that was not committed
            raise

    def _write(
        self, changed: Mapping[str, list[Row]], *, forget_before: int = 0, open: bool = True, create: bool = False
    ) -> None:
        super()._write(changed, forget_before=forget_before, open=open, create=create)
        if not self._tidy:
            self._checkpoint()

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        super().commit(snapshot, members)
        if time.monotonic() >= self._checkpointed + CHECKPOINT_SECONDS:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Copies the log into the file, and empties it. This may fail: the log is then read at the next opening."""
        try:
            with self._translated():
                busy, _, _ = self._driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._tidy = not busy
            self._checkpointed = time.monotonic()
        except StoreError as error:
            log.warning("the write-ahead log stays as it is for now: %s", error)
            self._tidy = False

    def close(self) -> None:
        try:
            self._write({}, open=False)
            self._checkpoint()
        except StoreError as error:
            log.warning("the store was not closed cleanly: keep its write-ahead log, too. %s", error)
        super().close()


def _check_access(part: Path, path: Path) -> None:
    """Raises StoreError unless this user can read and write `part` of the store at `path`."""
    if not os.access(part, os.R_OK | os.W_OK | (os.X_OK if part.is_dir() else 0)):
        what = f"this user cannot read and write {part.absolute()}, or it is on a read-only disk"
        raise StoreError(what, where=str(path), fix="a folder that exists, and files that can be written")


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


def _sync_folder(folder: Path) -> None:
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
