"""A store in one SQLite file, for a coordinator on one machine.

A write-ahead log with a full sync at every commit: an acknowledged update survives a power cut. The file is locked
while it is open, so a second coordinator fails at once. When a round has been committed, the log is copied into the
file, at most once a second: it costs three syncs. Until the file is closed, it says that a log belongs to it. So a file
that lost its log is refused.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedbbpt.errors import StoreDamaged, StoreError
from fedbbpt.server.stores.damage import damaged
from fedbbpt.server.stores.log_check import check_log
from fedbbpt.server.stores.rows import Row, RunRecord
from fedbbpt.server.stores.sql import SqlStore, new_run
from fedbbpt.server.stores.sqlite_file import PAGE_BYTES, SqliteFile, write_file
from fedbbpt.types import Member, Snapshot

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 1.0
"""The log is copied into the file at most this often."""


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
        self._identity = _identity(self._where_path)
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
        if self._log.exists():
            what = f"the file is missing, and its write-ahead log {self._log.name} is there"
            raise StoreDamaged(what, where=str(path), fix="the file of this log, or remove the log to begin a new run")
        try:
            write_file(path, new_run(run))
        except FileExistsError:
            log.info("another coordinator has just created %s", path)

    def _write(
        self, changed: Mapping[str, list[Row]], *, forget_before: int = 0, open: bool = True, create: bool = False
    ) -> None:
        if _identity(self._where_path) != self._identity:
            # SQLite would go on with a file that has no name any more, and everything would be lost in the end.
            what, fix = "the file was moved, deleted or replaced", "the file as it was; the run then continues"
            raise StoreError(what, where=self._where, fix=fix)
        try:
            super()._write(changed, forget_before=forget_before, open=open, create=create)
        except StoreError:
            self._tidy = False  # the log may now end with frames of a transaction that was not committed
            raise
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

    def backup(self, path: Path) -> None:
        write_file(path, self.rows())

    def close(self) -> None:
        if self._connection.closed:
            return
        try:
            self._write({}, open=False)
            self._checkpoint()
        except StoreError as error:
            log.warning("the store was not closed cleanly: keep its write-ahead log, too. %s", error)
        super().close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another of the same name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_access(part: Path, path: Path) -> None:
    """Raises StoreError unless this user can read and write `part` of the store at `path`."""
    if not os.access(part, os.R_OK | os.W_OK | (os.X_OK if part.is_dir() else 0)):
        what = f"this user cannot read and write {part.absolute()}, or it is on a read-only disk"
        raise StoreError(what, where=str(path), fix="a folder that exists, and files that can be written")
