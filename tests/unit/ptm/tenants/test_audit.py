"""The audit log's chain of records after crashes, full disks and manipulations."""

import errno
import hashlib
import json
import os
import re
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest

from fedbbpt.errors import AuditBroken, InvalidInput, StoreError, StoreFull, StoreLocked
from fedbbpt.host.audit import Anchor, AuditLog, read_audit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def clock() -> float:
    return 1_700_000_000.25


@contextmanager
def opened(file: Path) -> Iterator[AuditLog]:
    log = AuditLog(file, clock)
    try:
        yield log
    finally:
        log.close()


def write(file: Path, *queries: int) -> Anchor:
    with opened(file) as log:
        for count in queries:
            log.append("score", "anna", task="t", queries=count, words="né\n")
        return log.head


def queries(file: Path) -> list[int]:
    return [record["queries"] for record in read_audit(file)]


def test_records_have_the_appended_fields(file: Path) -> None:
    write(file, 3)
    head = write(file, 4)
    first, second = read_audit(file)
    assert {key: first[key] for key in ("n", "time", "kind", "tenant", "task", "queries", "words")} == {
        "n": 1,
        "time": "2023-11-14T22:13:20.250000+00:00",
        "kind": "score",
        "tenant": "anna",
        "task": "t",
        "queries": 3,
        "words": "né\n",
    }
    assert second["previous"] == first["hash"]
    assert head == Anchor(2, second["hash"])
    assert S_IMODE(file.stat().st_mode) == 0o600


def test_opening_replays_the_records(file: Path) -> None:
    write(file, 3, 4)
    replayed: list[int] = []
    AuditLog(file, clock, lambda record: replayed.append(record["queries"])).close()
    assert replayed == [3, 4]


def test_log_without_a_file_keeps_nothing() -> None:
    log = AuditLog(None, clock)
    log.append("score", "anna", queries=3)
    assert log.head == Anchor()
    log.close()


def test_log_is_locked_by_one_service(file: Path) -> None:
    with opened(file), pytest.raises(StoreLocked, match="another service has it open"):
        AuditLog(file, clock)
    write(file, 3)
    assert queries(file) == [3]


def test_crash_at_any_byte_loses_the_last_record_only(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand times
    write(file, 3)
    kept = len(file.read_bytes())
    write(file, 4)
    whole = file.read_bytes()
    for size in range(kept, len(whole)):
        file.write_bytes(whole[:size])
        assert queries(file) == [3]
        caplog.clear()
        write(file, 5)
        assert ("audit.jsonl:2: ignoring the last record, which is incomplete" in caplog.text) == (size > kept)
        assert queries(file) == [3, 5]


def test_crash_at_the_first_record_leaves_an_empty_log(file: Path) -> None:
    write(file, 3)
    file.write_bytes(file.read_bytes()[:20])
    write(file, 5)
    assert queries(file) == [5]


def broken(file: Path, lines: bytes) -> str:
    """Returns the error message for a file with these lines."""
    file.write_bytes(lines)
    with pytest.raises(AuditBroken) as opening:
        AuditLog(file, clock)
    assert file.read_bytes() == lines, "evidence stays as it is"
    with pytest.raises(AuditBroken) as reading:
        list(read_audit(file))
    assert str(reading.value) == str(opening.value)
    return str(reading.value)


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80], ids=hex)
def test_every_changed_byte_is_detected(change: int, file: Path) -> None:
    write(file, 3, 4)
    whole = file.read_bytes()
    for place in range(len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with pytest.raises(AuditBroken, match=r"audit\.jsonl:[12]: the record was changed"):
            list(read_audit(file))


def sealed(line: bytes, **changed: Any) -> bytes:
    """Returns the record with these changes and a correct hash, as a forger would write it."""
    record = {key: value for key, value in {**json.loads(line), **changed}.items() if key != "hash"}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["hash"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_errors_name_the_line(file: Path) -> None:
    write(file, 3, 4, 5)
    first, second, third = lines = file.read_bytes().splitlines(keepends=True)
    assert [sealed(line) for line in lines] == lines
    where = re.escape(str(file))
    assert re.match(f"{where}:2: the record was changed", broken(file, first + second.replace(b"4", b"9") + third))
    assert "1: record 2 where record 1 belongs: records are missing" in broken(file, second + third)
    assert "2: record 3 where record 2 belongs: records are missing" in broken(file, first + third)
    assert "2: record 3 where record 2 belongs: records are missing or were moved" in broken(
        file, first + third + second
    )
    assert "2: record 1 where record 2 belongs" in broken(file, first + first + second + third)
    forged = sealed(second, queries=9)
    assert "3: the record before it was replaced" in broken(file, first + forged + third)
    for line in (
        b"\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"n":NaN}\n',
        first[:-1] + b" \n",
    ):
        assert "1: the record was changed" in broken(file, line + second + third)


def test_anchor_detects_a_cut_and_a_rewritten_end(file: Path) -> None:
    head = write(file, 3, 4, 5)
    first, second, third = file.read_bytes().splitlines(keepends=True)
    assert [record["queries"] for record in read_audit(file, Anchor.parse(str(head)))] == [3, 4, 5]
    file.write_bytes(first + second)
    assert queries(file) == [3, 4]
    with pytest.raises(AuditBroken, match="only 2 of the anchor's 3 records"):
        list(read_audit(file, head))
    file.write_bytes(first + second + sealed(third, queries=1))
    assert queries(file) == [3, 4, 1]
    with pytest.raises(AuditBroken, match=r"audit\.jsonl:3: the record is not the anchor's"):
        list(read_audit(file, head))
    file.write_bytes(b"")
    with pytest.raises(AuditBroken, match="only 0 of the anchor's 3 records"):
        list(read_audit(file, head))


@pytest.mark.parametrize("text", ["", "3", "0:" + "a" * 64, "3:abc", "-1:" + "a" * 64, "3:" + "g" * 64])
def test_invalid_anchors_are_rejected(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an anchor"):
        Anchor.parse(text)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size of files, so that the kernel writes only what still fits, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_the_log_unchanged(file: Path) -> None:
    head = write(file, 3, 4)
    whole = file.read_bytes()
    with opened(file) as log:
        for room in (0, 1, 100):
            with largest_file(len(whole) + room), pytest.raises(StoreFull, match="free some space"):
                log.append("score", "anna", queries=5)
            assert file.read_bytes() == whole
            assert log.head == head
        log.append("score", "anna", queries=6)
    assert queries(file) == [3, 4, 6]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_record_that_cannot_be_synced_is_removed(number: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal may fail at first as well."""
    write(file, 3)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with opened(file) as log:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(StoreFull if number == errno.ENOSPC else StoreError):
                log.append("score", "anna", queries=4, words="long" * 100)
        log.append("score", "anna", queries=5)
    assert queries(file) == [3, 5]


def test_unusable_paths_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        AuditLog(tmp_path / "gone/audit.jsonl", clock)
    with pytest.raises(StoreError, match="Is a directory"):
        AuditLog(tmp_path, clock)
    with pytest.raises(InvalidInput, match="No such file"):
        list(read_audit(tmp_path / "audit.jsonl"))


def test_threads_append_to_one_chain(file: Path) -> None:
    with opened(file) as log, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda count: log.append("score", "anna", queries=count), range(40)))
    assert sorted(queries(file)) == list(range(40))
