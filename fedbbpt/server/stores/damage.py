"""The errors of stores that no coordinator may open."""

from fedbbpt.errors import StoreDamaged, StoreMismatch, StoreTooNew
from fedbbpt.server.stores.schema import SCHEMA_VERSION

RESTORE = "restore the latest backup, or begin a new run with another store"


def damaged(what: str, where: str) -> StoreDamaged:
    """Returns the error of a store whose contents are not what a coordinator wrote."""
    return StoreDamaged(what, where=where, fix=RESTORE)


def check_version(version: int, where: str) -> None:
    """Raises StoreTooNew or StoreMismatch for a version of the schema that is not this one's."""
    if version > SCHEMA_VERSION:
        fix = f"a newer fedbbpt, or another file: this one reads up to version {SCHEMA_VERSION}"
        raise StoreTooNew(f"schema version {version}", where=where, fix=fix)
    if version < SCHEMA_VERSION:
        fix = "the fedbbpt version that began the run, or another output folder"
        raise StoreMismatch(f"schema version {version} of an older fedbbpt", where=where, fix=fix)
