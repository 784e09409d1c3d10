"""Checks SQLite's write-ahead log before SQLite reads it.

SQLite takes the first frame that does not match its checksum for the end of the log: after a crash, it is one that was
never completed. So a damaged log would lose acknowledged transactions in silence. But only the end of the file can be
incomplete, and every frame that is complete must match. https://sqlite.org/fileformat2.html#walformat has the format.
"""

import struct
from pathlib import Path

from fedbbpt.server.stores.damage import damaged

_HEADER, _FRAME_HEADER = struct.Struct(">8I"), struct.Struct(">6I")
_MAGIC, _FORMAT = 0x377F0682, 3007000
_LITTLE_ENDIAN, _BIG_ENDIAN = 0, 1
"""The last bit of the magic number is the order of the bytes in the numbers that the checksums sum up."""


def check_log(path: Path, page_bytes: int) -> None:
    """Checks the log at `path`; its pages have `page_bytes`. Raises StoreDamaged."""
    data = path.read_bytes()
    if len(data) < _HEADER.size + _FRAME_HEADER.size + page_bytes:
        return  # no frame is complete, so no transaction is
    magic, version, page_size, _, salt_1, salt_2, *expected = _HEADER.unpack_from(data)
    sums = _extended((0, 0), data[: _HEADER.size - 8], magic & 1)
    if (magic & ~1, version, page_size) != (_MAGIC, _FORMAT, page_bytes) or sums != tuple(expected):
        raise damaged("the header of the write-ahead log does not match its checksum", str(path))
    step = _FRAME_HEADER.size + page_bytes
    for number, start in enumerate(range(_HEADER.size, len(data) - step + 1, step)):
        frame = data[start : start + step]
        *_, frame_salt_1, frame_salt_2, first, second = _FRAME_HEADER.unpack_from(frame)
        sums = _extended(sums, frame[:8] + frame[_FRAME_HEADER.size :], magic & 1)
        if (frame_salt_1, frame_salt_2, first, second) != (salt_1, salt_2, *sums):
            raise damaged(f"frame {number} of the write-ahead log does not match its checksum", str(path))


def _extended(sums: tuple[int, int], data: bytes, order: int) -> tuple[int, int]:
    """Returns SQLite's pair of checksums after more bytes, a multiple of 8 of them."""
    first, second = sums
    for left, right in struct.iter_unpack("><"[order == _LITTLE_ENDIAN] + "2I", data):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return first, second
