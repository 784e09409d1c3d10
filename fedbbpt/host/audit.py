"""The audit log: one line of JSON for each event, chained by hashes.

Each record holds the hash of the record before it, so a reader of the file detects records that were changed, removed
or moved. The file alone cannot show that its last records were cut off; keeping an anchor, "N:HASH" of the last record,
in another place can.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TypeAlias

from fedbbpt.errors import AuditBroken, InvalidInput, StoreError, StoreFull, StoreLocked
from fedbbpt.host.files import sync_folder

log = logging.getLogger(__name__)

FIRST = "the first record of a fedbbpt audit log"
"""The value of `previous` in the first record."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Record: TypeAlias = dict[str, Any]
"""`n` from 1, `time` in UTC, `kind`, `previous` and `hash`, whom it is about, and the fields of the kind."""
CHAIN = frozenset({"n", "time", "kind", "previous", "hash"})
"""The fields that every record has."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The number of records and the hash of the last one. No record up to it can be changed without detection."""

    count: int = 0
    hash: str = FIRST

    @staticmethod
    def parse(text: str) -> "Anchor":
        """Parses "N:HASH". Raises InvalidInput."""
        found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text)
        if not found:
            raise InvalidInput(f"{text!r} is not an anchor", where="anchor", fix="N:HASH of the N-th record")
        return Anchor(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _sealed(record: Record) -> Record:
    """Returns the record with its hash."""
    return {**record, "hash": hashlib.sha256(_canonical(record)).hexdigest()}


def read_audit(path: Path, anchor: Anchor | None = None) -> Iterator[Record]:
    """Yields the records of a log, verified one by one.

    Skips a last line without its end, which a running or crashed service may leave.

    Raises:
        AuditBroken: A record was changed or is missing; names its line.
        InvalidInput: The file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="the audit log of a service") from None
    with file:
        yield from _verified(file, path, anchor)


def _verified(file: BinaryIO, path: Path, anchor: Anchor | None = None) -> Iterator[Record]:
    head = Anchor()
    for line in file:
        if not line.endswith(b"\n"):
            log.warning("%s:%d: ignoring the last record, which is incomplete", path, head.count + 1)
            break
        record = _parse(line, head, f"{path}:{head.count + 1}")
        head = Anchor(record["n"], record["hash"])
        if anchor and anchor.count == head.count and anchor != head:
            raise AuditBroken("the record is not the anchor's", where=f"{path}:{head.count}", fix=f"{anchor}")
        yield record
    if anchor and head.count < anchor.count:
        what = f"only {head.count} of the anchor's {anchor.count} records: the end was cut off"
        raise AuditBroken(what, where=str(path), fix="the complete file")


def _parse(line: bytes, head: Anchor, where: str) -> Record:
    """Parses and verifies the record that follows `head`."""
    fix = "a copy of the file as the service wrote it"
    try:
        record = json.loads(line)
        body = {key: value for key, value in record.items() if key != "hash"}
        sound = record.keys() >= CHAIN and _canonical(_sealed(body)) + b"\n" == line
    except (ValueError, AttributeError, RecursionError):  # not JSON, not an object, or nested too deeply
        sound = False
    if not sound:
        raise AuditBroken("the record was changed", where=where, fix=fix)
    if record["n"] != head.count + 1:
        what = f"record {record['n']} where record {head.count + 1} belongs: records are missing or were moved"
        raise AuditBroken(what, where=where, fix=fix)
    if record["previous"] != head.hash:
        raise AuditBroken("the record before it was replaced", where=where, fix=fix)
    return dict(record)


class AuditLog:
    """Appends to the file, which it locks. Thread-safe."""

    def __init__(
        self,
        path: Path | None,
        wall_clock: Callable[[], float] = time.time,
        replay: Callable[[Record], None] = lambda record: None,
        about: str = "tenant",
    ) -> None:
        """Opens or creates the file, verifies its records, and passes each to `replay`.

        Args:
            path: The file; None keeps no log.
            wall_clock: Returns seconds since 1970.
            replay: Called with each record.
            about: The name of the field that says whom a record is about: "tenant" at a PTM service, "client" at a
                coordinator.

        Raises:
            StoreLocked: Another service has the file open.
            AuditBroken: A record was changed or is missing.
            StoreError: The file cannot be read or written.
        """
        self._path, self._wall_clock, self._lock, self._about = path, wall_clock, Lock(), about
        self.head = Anchor()
        """The anchor of the last record."""
        self._size, self._torn, self._descriptor = 0, False, -1
        if path is not None:
            self._open(path, replay)

    def _open(self, path: Path, replay: Callable[[Record], None]) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            sync_folder(path.parent)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(self._descriptor, "rb", closefd=False) as file:
                for record in _verified(file, path):
                    replay(record)
                    self._follow(record, file.tell())
            if os.fstat(self._descriptor).st_size > self._size:
                self._truncate()
        except BlockingIOError:
            self.close()
            raise StoreLocked(
                "another service has it open", where=str(path), fix="a separate log for each service"
            ) from None
        except OSError as error:
            self.close()
            raise _store_error(error, path) from None
        except BaseException:
            self.close()
            raise

    def append(self, kind: str, subject: str, **fields: Any) -> None:
        """Appends a record about a tenant or a client, which is durable when this returns.

        Raises:
            StoreFull: The disk is full. The file is unchanged.
            StoreError: The file cannot be written. It is unchanged.
        """
        assert not {*CHAIN, self._about} & fields.keys(), "fields of the chain itself"
        if self._path is None:
            return
        with self._lock:
            now = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="microseconds")
            chain = {"n": self.head.count + 1, "time": now, "kind": kind, "previous": self.head.hash}
            record = _sealed({**fields, self._about: subject, **chain})
            line = _canonical(record) + b"\n"
            try:
                self._write(line)
            except OSError as error:
                raise _store_error(error, self._path) from None
            self._follow(record, self._size + len(line))

    def _follow(self, record: Record, size: int) -> None:
        self.head = Anchor(record["n"], record["hash"])
        self._size, self._torn = size, False

    def _write(self, line: bytes) -> None:
        if self._torn:
            self._truncate()
        self._torn = True
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._size + written)
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):  # or else before the next record
                self._truncate()
            raise

    def _truncate(self) -> None:
        """Removes everything after the last complete record."""
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)
        self._torn = False

    def close(self) -> None:
        """Closes the file, so that another service can open it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in DISK_FULL:
        return StoreFull("the disk is full", where=str(path), fix="free some space")
    return StoreError(error.strerror or str(error), where=str(path), fix="a writable place")


def record_refusal(append: Callable[..., None], subject: str, error: Exception, **fields: Any) -> None:
    """Records with `append` that a call was refused with `error`. Only logs a warning if it cannot be written."""
    try:
        append("refusal", subject, status=type(error).__name__, **fields)
    except StoreError as problem:
        log.warning("a refusal could not be recorded: %s", problem)
