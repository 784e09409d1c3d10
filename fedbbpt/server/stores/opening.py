"""Opens the store that `--store` names: a file, or a PostgreSQL database; waits for it, and watches over it."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from fedbbpt.errors import InvalidInput, StoreError, StoreLocked
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sql import SqlStore
from fedbbpt.server.stores.sqlite import SqliteStore

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
SCHEME = "postgresql://"


def open_store(location: str, run: RunRecord) -> SqlStore:
    """Opens or creates the store at a path, or at a URL of PostgreSQL.

    Raises InvalidInput for a URL of another kind, and what `SqliteStore` and `PostgresStore` raise.
    """
    if location.startswith(SCHEME):
        from fedbbpt.server.stores.postgres import PostgresStore  # its driver takes long to import

        return PostgresStore(location, run)
    if "://" in location:
        raise InvalidInput(f"{location.partition('://')[0]}://", where="--store", fix=f"a file, or {SCHEME}...")
    return SqliteStore(Path(location), run)


def folder_of(location: str) -> Path:
    """Returns the folder for what a coordinator writes next to its store; for a database, the current folder."""
    return Path() if "://" in location else Path(location).parent


def await_store(location: str, run: RunRecord, pause: Callable[[float], None] = time.sleep) -> SqlStore:
    """Opens the store as soon as the coordinator that has it ends or dies. Raises what else `open_store` raises."""
    told = ""
    while True:
        try:
            return open_store(location, run)
        except StoreError as error:
            if type(error) not in (StoreLocked, StoreError):
                raise
            if str(error) != told:
                told = str(error)
                log.info("standing by: %s", f"{error.where}: {error.what}")
            pause(POLL_SECONDS)


async def watch_store(store: SqlStore) -> None:
    """Asks the store for a sign of life every second, for ever. Raises StoreReplaced once another one has it.

    A coordinator without work would otherwise not notice that it has been replaced, and would keep its clients.
    """
    silent = False
    while store.replaceable:
        await asyncio.sleep(POLL_SECONDS)
        try:
            store.ask()
        except StoreError as error:
            if not silent:
                log.warning("%s", error)
            silent = True
        else:
            if silent:
                log.info("the store answers again")
            silent = False
    await asyncio.Event().wait()
