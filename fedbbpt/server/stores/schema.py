"""The tables of a store, and the statements on them, which are built once for each kind of database."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

SCHEMA_VERSION = 5
"""Version 4 had no account of privacy, and version 3 had no checksums."""

METADATA = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Returns a table with its key, a record in JSON as text, its arrays, and the checksum of all of them."""
    checksum = sa.Column("checksum", sa.LargeBinary, nullable=False)
    return sa.Table(name, METADATA, *columns, checksum)


def _only() -> sa.Column[int]:
    """Returns the key of a table with one row."""
    return sa.Column("id", sa.Integer, sa.CheckConstraint("id = 0"), primary_key=True, autoincrement=False)


def _round() -> sa.Column[int]:
    return sa.Column("round", sa.Integer, primary_key=True, autoincrement=False)


def _client_id() -> sa.Column[str]:
    return sa.Column("client_id", sa.Text, primary_key=True)


def _record() -> sa.Column[str]:
    return sa.Column("record", sa.Text, nullable=False)


def _arrays(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


RUN = _table("run", _only(), _record())
SNAPSHOT = _table("snapshot", _only(), _record(), _arrays("state"), _arrays("finalists_z"))
REPORT = _table("report", _round(), _record())
MEMBER = _table("member", _client_id(), _record())
UPDATE = _table("update", _round(), _client_id(), _record(), _arrays("arrays"))
SEAL = _table("seal", _only(), _record())

SEALED = (RUN, SNAPSHOT, REPORT, MEMBER, UPDATE)
"""The tables whose rows the seal sums up."""


@dataclass(frozen=True)
class Statements:
    """The statements of one kind of database. SQLAlchemy compiles each of them once."""

    put: Mapping[str, sa.Executable]
    """By table: adds rows, or replaces those with the same key."""
    read: Mapping[str, sa.Executable]
    """By table: reads all rows in the order of their keys."""
    answered: sa.Executable
    """Reads the ids of the clients with an update of `round`, in order."""
    read_update: sa.Executable
    """Reads the update of `client_id` in `round`."""
    forget_updates: sa.Executable
    """Deletes the updates of the rounds before `round`."""


def statements(insert: Callable[[sa.Table], Any]) -> Statements:
    """Returns the statements of a database. `insert` is the dialect's own, which knows ON CONFLICT."""
    tables = (*SEALED, SEAL)
    return Statements(
        put={table.name: _upsert(insert(table), table) for table in tables},
        read={table.name: _select(table) for table in tables},
        answered=sa.select(UPDATE.c.client_id)
        .where(UPDATE.c.round == sa.bindparam("round"))
        .order_by(UPDATE.c.client_id),
        read_update=_select(UPDATE).where(
            UPDATE.c.round == sa.bindparam("round"), UPDATE.c.client_id == sa.bindparam("client_id")
        ),
        forget_updates=sa.delete(UPDATE).where(UPDATE.c.round < sa.bindparam("round")),
    )


def _upsert(inserting: Any, table: sa.Table) -> sa.Executable:
    keys = [column.name for column in table.primary_key]
    replaced = {column.name: inserting.excluded[column.name] for column in table.c if column.name not in keys}
    statement: sa.Executable = inserting.on_conflict_do_update(index_elements=keys, set_=replaced)
    return statement


def _select(table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    # Without types: a damaged value comes as it is stored, and is not converted before its checksum is compared.
    columns: Sequence[sa.ColumnElement[Any]] = [
        sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c
    ]
    return sa.select(*columns).order_by(*table.primary_key)
