"""The audit log: a line of JSON for each thing done, and each line holds the hash of the one before it.

A record that was changed, taken out or moved is found by whoever reads the file. That the last ones were cut off is not
to be seen in the file: whoever wants to know keeps an anchor, "N:HASH" of the last record, elsewhere.
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

log = logging.getLogger(__name__)

FIRST = "the first record of a fedbbpt audit log"
"""What stands for the hash before the first record."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Record: TypeAlias = dict[str, Any]
"""`n` from 1, `time` in UTC, `kind`, `tenant`, `previous` and `hash`, and whatever else the kind has."""
CHAIN = frozenset({"n", "time", "kind", "tenant", "previous", "hash"})


@dataclass(frozen=True, slots=True)
class Anchor:
    """How many records there are, and the hash of the last one: no record up to it can change unnoticed."""

    count: int = 0
    hash: str = FIRST

    @staticmethod
    def parse(text: str) -> "Anchor":
        """Raises InvalidInput."""
        found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text)
        if not found:
            raise InvalidInput(f"{text!r} is no anchor", where="anchor", fix="N:HASH of the N-th record")
        return Anchor(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _sealed(record: Record) -> Record:
    return {**record, "hash": hashlib.sha256(_canonical(record)).hexdigest()}


def read_audit(path: Path, anchor: Anchor | None = None) -> Iterator[Record]:
    """The records, verified one by one. Raises AuditBroken with the line, InvalidInput where there is no file.

    A last line without its end, which a service that is at work or has crashed may leave, is left out.
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
            log.warning("%s:%d: the last record is cut short, and does not count", path, head.count + 1)
            break
        record = _parse(line, head, f"{path}:{head.count + 1}")
        head = Anchor(record["n"], record["hash"])
        if anchor and anchor.count == head.count and anchor != head:
            raise AuditBroken("another record than the anchor's", where=f"{path}:{head.count}", fix=f"{anchor}")
        yield record
    if anchor and head.count < anchor.count:
        what = f"{head.count} records, of {anchor.count} that there were"
        raise AuditBroken(what, where=str(path), fix="the whole file: its end was cut off")


def _parse(line: bytes, head: Anchor, where: str) -> Record:
    """The record that follows the head."""
    fix = "the file as the service wrote it, from a copy"
    try:
        record = json.loads(line)
        body = {key: value for key, value in record.items() if key != "hash"}
        sound = record.keys() >= CHAIN and _canonical(_sealed(body)) + b"\n" == line
    except (ValueError, AttributeError, RecursionError):  # no JSON, no object, or one that goes too deep
        sound = False
    if not sound:
        raise AuditBroken("the record was changed", where=where, fix=fix)
    if record["n"] != head.count + 1:
        what = f"record {record['n']} where record {head.count + 1} belongs: some are missing, or not in their order"
        raise AuditBroken(what, where=where, fix=fix)
    if record["previous"] != head.hash:
        raise AuditBroken("the record before it is another than the one it was written behind", where=where, fix=fix)
    return dict(record)


class AuditLog:
    """Appends to the file that it alone has open. Safe for several threads.

    `wall_clock` gives seconds since 1970; without a path nothing is kept.
    """

    def __init__(
        self,
        path: Path | None,
        wall_clock: Callable[[], float] = time.time,
        replay: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """Opens or creates the file, verifies what is there, and gives each record to `replay`.

        Raises StoreLocked where another service has it, AuditBroken, StoreError.
        """
        self._path, self._wall_clock, self._lock = path, wall_clock, Lock()
        self.head = Anchor()
        self._size, self._torn, self._descriptor = 0, False, -1
        if path is not None:
            self._open(path, replay)

    def _open(self, path: Path, replay: Callable[[Record], None]) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            _sync_folder(path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(self._descriptor, "rb", closefd=False) as file:
                for record in _verified(file, path):
                    replay(record)
                    self._follow(record, file.tell())
            if os.fstat(self._descriptor).st_size > self._size:
                self._cut()
        except BlockingIOError:
            self.close()
            raise StoreLocked("another service has it open", where=str(path), fix="a log for each service") from None
        except OSError as error:
            self.close()
            raise _store_error(error, path) from None
        except BaseException:
            self.close()
            raise

    def append(self, kind: str, tenant: str, **fields: Any) -> None:
        """Durable when it returns. Raises StoreFull, StoreError: then the file is as it was."""
        assert not CHAIN & fields.keys(), "the chain's own names"
        if self._path is None:
            return
        with self._lock:
            now = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="microseconds")
            chain = {"n": self.head.count + 1, "time": now, "kind": kind, "tenant": tenant, "previous": self.head.hash}
            record = _sealed({**fields, **chain})
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
            self._cut()
        self._torn = True
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._size + written)
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):  # or else before the next record
                self._cut()
            raise

    def _cut(self) -> None:
        """Takes off whatever stands behind the last whole record."""
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)
        self._torn = False

    def close(self) -> None:
        """Lets another service have the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in NO_ROOM:
        return StoreFull("the disk is full", where=str(path), fix="free some space")
    return StoreError(error.strerror or str(error), where=str(path), fix="a place that can be written")


def _sync_folder(path: Path) -> None:
    """The name of a new file is durable, too."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
