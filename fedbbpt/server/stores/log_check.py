"""Checks SQLite's write-ahead log before SQLite reads it.

SQLite takes the first frame that does not match its checksum for the end of the log: after a crash, it is one that was
never completed. So a damaged log would lose acknowledged transactions in silence. But only the end of the file can be
incomplete, and every frame that is complete must match. https://sqlite.org/fileformat2.html#walformat has the format.
"""

from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.server.stores.damage import damaged

Words: TypeAlias = npt.NDArray[np.uint32]

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_MAGIC, _FORMAT = 0x377F0682, 3007000


def check_log(path: Path, page_bytes: int) -> None:
    """Checks the log at `path`; its pages have `page_bytes`. Raises StoreDamaged."""
    read = path.read_bytes()
    # If the file has changed meanwhile, a coordinator is writing it, and SQLite will say that the store is locked.
    if (problem := _problem(np.frombuffer(read, np.uint8), page_bytes)) and path.read_bytes() == read:
        raise damaged(f"{problem} of the write-ahead log does not match its checksum", str(path))


def _problem(data: npt.NDArray[np.uint8], page_bytes: int) -> str:
    """Returns the part of the log that is damaged, or an empty string."""
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    count = max(0, len(data) - _HEADER_BYTES) // frame_bytes
    if not count:
        return ""  # no frame is complete, so no transaction is
    header = data[:_HEADER_BYTES].view(">u4")
    magic, version, page_size = (int(word) for word in header[:3])
    order = "<>"[magic & 1]  # of the bytes in the words that the checksums sum up
    sums = _extended(np.zeros((1, 2), np.uint32), data[:24].view(f"{order}u4")[None])
    if (magic & ~1, version, page_size) != (_MAGIC, _FORMAT, page_bytes) or (sums != header[6:]).any():
        return "the header"
    frames = data[_HEADER_BYTES : _HEADER_BYTES + count * frame_bytes].reshape(count, frame_bytes)
    heads = frames[:, :_FRAME_HEADER_BYTES].copy().view(">u4").astype(np.uint32)
    covered = np.concatenate([frames[:, :8], frames[:, _FRAME_HEADER_BYTES:]], axis=1).view(f"{order}u4")
    expected = _extended(np.concatenate([sums, heads[:-1, 4:]]), covered)
    wrong = (heads[:, 2:4] != header[4:6]).any(axis=1) | (heads[:, 4:] != expected).any(axis=1)
    return f"frame {wrong.argmax()}" if wrong.any() else ""


def _extended(sums: Words, words: npt.NDArray[np.unsignedinteger]) -> Words:
    """Returns SQLite's checksums `[F, 2]` after more words `[F, 2 * pairs]`, for F checksums `[F, 2]`.

    For each pair (x, y), SQLite sets a += x + b and then b += y + a, modulo 2^32. That is linear in the checksums and
    in the words, so a product of matrices computes all F at once; uint32 wraps around.
    """
    of_sums, of_words = _coefficients(words.shape[1] // 2)
    extended: Words = sums @ of_sums + words.astype(np.uint32) @ of_words
    return extended


@cache
def _coefficients(pairs: int) -> tuple[Words, Words]:
    """Returns what the checksums `[2, 2]` and each of the words `[2 * pairs, 2]` add to the checksums in the end."""
    step, pair = np.asarray([[1, 1], [1, 2]], np.uint32), np.asarray([[1, 1], [0, 1]], np.uint32)
    of_words = np.empty((pairs, 2, 2), np.uint32)
    power = np.eye(2, dtype=np.uint32)
    for place in reversed(range(pairs)):
        of_words[place] = pair @ power
        power = power @ step
    return power, of_words.reshape(2 * pairs, 2)
