"""The seal of a store: one row that every transaction rewrites, and that says what the other rows must be.

A checksum of a row finds a changed row. The seal also finds a row that is missing, too many, or of an earlier time:
it holds the sum of the checksums of all rows, modulo 2^128, so that a transaction updates it without reading any row.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fedbbpt.server.stores.rows import CHECKSUM_BYTES, Row, checksum, values
from fedbbpt.server.stores.schema import SCHEMA_VERSION

Key: TypeAlias = tuple[str | int, ...]
"""A table's name, and the primary key of a row."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What one transaction leaves."""

    transactions: int
    """The number of transactions since the store was created, with this one."""
    total: str
    """The sum of the checksums of all rows except the seal's, hexadecimal."""
    open: bool = False
    """Whether a coordinator has the store open. In SQLite, the write-ahead log must then exist beside the file."""
    writer: str = ""
    """The name of the coordinator that wrote it, random, in a database where another may take its place."""
    tables: str = ""
    """A digest of the definitions of SQLite's tables."""
    version: int = SCHEMA_VERSION


def seal_row(seal: Seal) -> Row:
    """Returns the row of a seal."""
    columns: Row = {"id": 0, "record": json.dumps(values(seal))}
    return columns | {"checksum": checksum("seal", columns)}


def version_of(row: Row) -> int:
    """Returns the version of the schema of the store with this seal, which may not be this one's."""
    version: int = json.loads(row["record"])["version"]
    return version


def seal_of(row: Row) -> Seal:
    """Returns the seal in a row."""
    return Seal(**json.loads(row["record"]))


class Ledger:
    """The checksums of the stored rows by key, and their sum."""

    def __init__(self, checksums: Mapping[Key, bytes]) -> None:
        self._checksums = {key: int.from_bytes(checksum) for key, checksum in checksums.items()}
        self._total = sum(self._checksums.values())
        self.updates = {key: int(key[1]) for key in checksums if key[0] == "update"}
        """The rounds of the stored updates by key."""

    @property
    def total(self) -> str:
        """The sum of all checksums modulo 2^128, hexadecimal."""
        return _hexadecimal(self._total)

    def total_after(self, put: Mapping[Key, bytes], forgotten: Collection[Key]) -> str:
        """Returns the total after rows have been added or replaced and others deleted. Changes nothing."""
        added = sum(int.from_bytes(checksum) - self._checksums.get(key, 0) for key, checksum in put.items())
        return _hexadecimal(self._total + added - sum(self._checksums[key] for key in forgotten))

    def adopt(self, put: Mapping[Key, bytes], forgotten: Collection[Key], total: str) -> None:
        """Adds or replaces rows and deletes others, once the transaction that ends with `total` has succeeded."""
        self._total = int(total, 16)
        for key in forgotten:
            del self._checksums[key], self.updates[key]
        self._checksums |= {key: int.from_bytes(checksum) for key, checksum in put.items()}
        self.updates |= {key: int(key[1]) for key in put if key[0] == "update"}


def _hexadecimal(total: int) -> str:
    return f"{total % 2 ** (8 * CHECKSUM_BYTES):0{2 * CHECKSUM_BYTES}x}"
