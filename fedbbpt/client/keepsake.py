"""The files of a client: name and key, the last update, which may not have arrived, and its method's private arrays.

A client that dies between its search and the receipt submits the same bytes after its restart, without any new query.

Two files take turns. The older one is overwritten in place, which costs at most one flush of the disk; a new file that
replaces another costs several. A crash in between damages that file alone, and its checksum shows it.
"""

import json
import os
import secrets
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from safetensors.numpy import load, save

from fedbbpt.host.files import atomic_write, sync_folder
from fedbbpt.types import Arrays, Measurement, Phase, TaskId, Update

_KEY_BYTES = 16
_NAME_BYTES = 3
_PRIVATE = "private/"
_OWNER_ONLY = 0o600
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<QQI")
"""After the checksum of all that follows: the number of the save, the length of the rest, that of its description."""

_flush = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Keepsake:
    """A folder that belongs to one client of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._name = folder / "client.name"
        self._files, self._key = [folder / "update-0", folder / "update-1"], folder / "client.key"
        self._number: int | None = None
        """The number of the last save, which tells its file; None until the files are read."""
        self._last: tuple[TaskId, Update] | None = None

    def client_key(self) -> str:
        """Returns the client's key. The first call draws it and writes it to a file that only this user can read."""
        if not self._key.exists():
            atomic_write(self._key, secrets.token_hex(_KEY_BYTES), mode=_OWNER_ONLY)
        return self._key.read_text()

    def client_name(self, stem: str) -> str:
        """Returns the name of a client that its user gave none. The first call draws it: `stem` with a random end.

        So two organisations with files of the same name do not meet under one name.
        """
        if not self._name.exists():
            atomic_write(self._name, f"{stem}-{secrets.token_hex(_NAME_BYTES)}")
        return self._name.read_text(encoding="utf-8")

    def save(self, task_id: TaskId, update: Update, private: Arrays, *, flush: bool = False) -> None:
        """Replaces the saved update and the private arrays, so that both survive the end of this process.

        With `flush`, or with private arrays, both are on disk when this returns. Otherwise the update may be lost when
        the machine fails: it would be computed again, with the same result.
        """
        about = {
            "run_id": task_id.run_id,
            "round": task_id.round,
            "client_id": task_id.client_id,
            "phase": task_id.phase,
            "weight": update.weight,
            "measurement": _numbers(update.measurement),
            "finalists": [_numbers(measured) for measured in update.finalists],
            "names": list(update.arrays),
        }
        arrays = {**update.arrays, **{_PRIVATE + name: array for name, array in private.items()}}
        if self._number is None:
            self._read_newest()
        following = (self._number or 0) + 1
        content = json.dumps(about).encode(), save(arrays)
        _overwrite(self._files[following % 2], following, *content, flush=flush or bool(private))
        self._number, self._last = following, (task_id, update)

    def load(self, task_id: TaskId) -> Update | None:
        """Returns the update that was saved for this task, bit for bit; None if there is none."""
        self._load_last()
        return self._last[1] if self._last is not None and self._last[0] == task_id else None

    @property
    def last(self) -> TaskId | None:
        """The task of the saved update; None if there is none."""
        self._load_last()
        return self._last[0] if self._last is not None else None

    def _load_last(self) -> None:
        if self._last is None and (found := self._read_newest()):
            about, arrays = found
            saved = TaskId(about["run_id"], about["round"], about["client_id"], Phase(about["phase"]))
            self._last = (
                saved,
                Update(
                    {name: arrays[name] for name in about["names"]},
                    about["weight"],
                    Measurement(**about["measurement"]),
                    finalists=tuple(Measurement(**measured) for measured in about["finalists"]),
                ),
            )

    def load_private(self, run_id: str) -> Arrays:
        """Returns the private arrays after the last answer of this run; empty if there are none."""
        found = self._read_newest()
        if found is None or found[0]["run_id"] != run_id:
            return {}
        return {name.removeprefix(_PRIVATE): array for name, array in found[1].items() if name.startswith(_PRIVATE)}

    def _read_newest(self) -> tuple[dict[str, Any], Arrays] | None:
        """Reads the file of the last save: its description and all arrays."""
        self._number, about, arrays = max(filter(None, map(_read, self._files)), default=(0, b"", b""))
        return (json.loads(about), load(arrays)) if about else None


def _numbers(measured: Measurement) -> dict[str, float | None]:
    return {name: getattr(measured, name) for name in Measurement.__slots__}  # asdict would copy each number deeply


def _overwrite(path: Path, number: int, about: bytes, arrays: bytes, *, flush: bool) -> None:
    """Writes a save over the beginning of a file, which keeps the rest of its bytes and thus its place on the disk.

    `flush` waits until it is on the disk.
    """
    content = b"".join((_HEADER.pack(number, len(about) + len(arrays), len(about)), about, arrays))
    new = flush and not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, _OWNER_ONLY)
    try:
        _write([_CHECKSUM.pack(google_crc32c.value(content)), content], descriptor)
        if flush:
            _flush(descriptor)
    finally:
        os.close(descriptor)
    if new:
        sync_folder(path.parent)


def _write(parts: Sequence[bytes], descriptor: int) -> None:
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _read(path: Path) -> tuple[int, bytes, bytes] | None:
    """Returns the number of the save in a file, its description and its arrays; None if there is no whole one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = _CHECKSUM.size + _HEADER.size
    if len(data) < start:
        return None
    (checksum,), (number, length, described) = _CHECKSUM.unpack_from(data), _HEADER.unpack_from(data, _CHECKSUM.size)
    if google_crc32c.value(data[_CHECKSUM.size : start + length]) != checksum:
        return None
    return number, data[start : start + described], data[start + described : start + length]
