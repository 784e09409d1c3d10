"""A store in a PostgreSQL database, for coordinators that may change machines: one run in each schema.

The coordinator that has the store holds an advisory lock of its session. When the session ends, with the coordinator's
process or with its connection, another one can take the lock, and the store. So each transaction says which coordinator
wrote it, and one that finds another's when it returns has been replaced, and ends.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from fedbbpt.errors import InvalidInput, StoreError, StoreFull, StoreLocked, StoreMismatch, StoreReplaced, first_line
from fedbbpt.host.extras import require_package
from fedbbpt.server.stores.damage import damaged
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.schema import SEAL, statements
from fedbbpt.server.stores.seal import seal_of
from fedbbpt.server.stores.sql import SqlStore, new_run
from fedbbpt.server.stores.sqlite_file import write_file

CONNECT_SECONDS, SILENCE_SECONDS = 2, 10
"""How long a connection may take, and how long the other side may be silent. The coordinator waits meanwhile."""

_STATEMENTS = statements(insert)
_CLIENT = {
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": SILENCE_SECONDS,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * SILENCE_SECONDS,
}
"""libpq's options, by which a coordinator notices that the database has gone."""
_SERVER = {
    "tcp_keepalives_idle": f"{SILENCE_SECONDS}",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{SILENCE_SECONDS}s",
    "synchronous_commit": "on",
}
"""Settings of the session, by which the database notices that the coordinator has gone, and frees its lock."""
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('fedbbpt ' || current_schema(), 0))"
_CAUSES = {
    "25006": ("the database is read-only", "its primary server"),
    "28": ("the database refuses this user", "the user and the password of the URL, or ~/.pgpass"),
    "3D": ("there is no such database", "a database that exists"),
    "42501": ("this user has too few rights", "a user that may create tables in the schema"),
}
"""By the beginning of the SQLSTATE: what is wrong, and what would be right."""
_DAMAGE = ("XX001", "XX002", "42P01", "42703")
"""Corrupted data or index; a table or a column that is missing."""


class PostgresStore(SqlStore):
    """A `Store` in the schema that is the first of the connection's search path."""

    replaceable = True

    def __init__(self, url: str, run: RunRecord) -> None:
        """Opens the store, or creates its tables for `run`.

        Raises:
            InvalidInput: The URL is invalid.
            StoreLocked: Another coordinator has the store.
            StoreTooNew: A newer version of this package wrote the store.
            StoreMismatch: The store holds another job, or the schema has tables of another program.
            StoreDamaged: The rows are not as a coordinator left them.
            StoreError: The database does not answer, or refuses this user.
        """
        require_package("psycopg", "postgres", where="--store", alternative="a file")
        try:
            parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
        except (sa.exc.ArgumentError, ValueError):
            raise InvalidInput("not a URL", where="--store", fix="postgresql://USER@HOST/DATABASE") from None
        self._where = parsed.set(drivername="postgresql").render_as_string(hide_password=True)
        self._engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=_CLIENT)
        self._expected = run
        super().__init__(self._connect(), _STATEMENTS, self._where, writer=secrets.token_hex(8))
        try:
            self._open()
            self._write({})
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._error(error) from error

    def _error(self, error: sa.exc.DBAPIError) -> StoreError:
        state, text = getattr(error.orig, "sqlstate", None) or "", first_line(error.orig or error)
        if state.startswith(_DAMAGE):
            return damaged(f"the database is damaged ({text})", self._where)
        if state == "53100":
            return StoreFull("the database's disk is full", where=self._where, fix="free some space there")
        for beginning, (what, fix) in _CAUSES.items():
            if state.startswith(beginning):
                return StoreError(f"{what} ({text})", where=self._where, fix=fix)
        if error.connection_invalidated or not state:
            fix = "the right host, database, user and password; the run continues as soon as it answers"
            return StoreError(f"the database does not answer ({text})", where=self._where, fix=fix)
        return StoreError(text, where=self._where)

    def _connect(self) -> sa.Connection:
        with self._translated():
            connection = self._engine.connect()
            try:
                settings = [{"name": name, "value": value} for name, value in _SERVER.items()]
                connection.execute(sa.text("SELECT set_config(:name, :value, false)"), settings)
                connection.commit()
            except BaseException:
                connection.close()
                raise
            return connection

    def _open(self) -> None:
        """Takes the lock, and adopts what the store holds, or creates its tables."""
        with self._translated(), self._connection.begin():
            if self._connection.scalar(sa.text("SELECT current_schema()")) is None:
                fix = "CREATE SCHEMA, GRANT USAGE, CREATE, or another search_path in the URL's options"
                raise StoreError("the schema does not exist, or this user may not use it", where=self._where, fix=fix)
            if not self._connection.scalar(sa.text(_LOCK)):
                raise StoreLocked("another coordinator has it", where=self._where, fix="stop the other coordinator")
            tables = sa.inspect(self._connection).get_table_names()
        if not tables:
            self._create(new_run(self._expected))
        elif SEAL.name not in tables:
            fix = "a schema of its own: ?options=-csearch_path%3DNAME"
            raise StoreMismatch("a schema with tables of another program", where=self._where, fix=fix)
        self._transact(lambda connection: self._verify(connection, self._expected))

    def _ready(self) -> None:
        """Connects again if the connection was lost. The last transaction may have succeeded or not.

        Raises:
            StoreReplaced: Another coordinator has taken the store meanwhile.
            StoreError: The database does not answer, or has not noticed yet that the connection was lost.
        """
        if not (self._connection.closed or self._connection.invalidated):
            return
        self._connection.close()
        self._connection = self._connect()
        try:
            self._check_writer()
            self._open()
            self._check_writer()  # another coordinator may have had the store, and left it, since the first check
        except BaseException:
            self._connection.close()
            raise

    def _check_writer(self) -> None:
        (row,) = self._transact(lambda connection: self._read(connection, SEAL.name))
        if seal_of(row).writer != self._writer:
            fix = "its clients find the other one, if they have its address"
            raise StoreReplaced("another coordinator has taken over", where=self._where, fix=fix)

    def backup(self, path: Path) -> None:
        write_file(path, self.rows())

    def close(self) -> None:
        super().close()
        self._engine.dispose()
