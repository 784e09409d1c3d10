"""Reads the file of an offline run of Weights & Biases: protobuf records in the log format of LevelDB."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32_768
"""Bytes of a block. No header of a part spans two."""
PART = struct.Struct("<IHB")
"""The header of a part: checksum, length, and whether it is whole (1), the first (2), a middle (3) or the last (4)."""


def records(path: Path) -> Iterator[Any]:
    """Yields each record of the file."""
    from wandb.proto import wandb_internal_pb2

    kind: Any = wandb_internal_pb2
    for data in _texts(path.read_bytes()):
        yield kind.Record.FromString(data)


def _texts(file: bytes) -> Iterator[bytes]:
    assert not file or file.startswith(b":W&B")
    at, text = 7, b""
    while at + PART.size <= len(file):
        if BLOCK - at % BLOCK < PART.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, place = PART.unpack_from(file, at)
        at += PART.size
        text += file[at : at + length]
        at += length
        if place in (1, 4):
            yield text
            text = b""
