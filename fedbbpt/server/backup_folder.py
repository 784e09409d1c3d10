"""The folder of a run's backups, next to its store. Callers choose the names of its files, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

from fedbbpt.errors import InvalidRequest, Overloaded, StoreError

MOST_BACKUPS = 100
"""Unless operators have tokens of their own, every client may ask for backups, which must not fill the disk."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BackupFolder:
    """A folder that is created with its first backup, and in which no file is ever replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, backup: Callable[[Path], None]) -> Path:
        """Lets `backup` write a file of this name, and returns its path.

        Raises:
            InvalidRequest: The name has other characters or is too long, or there is such a file.
            Overloaded: There are too many backups.
            StoreError: The file cannot be written.
        """
        if not _NAME.fullmatch(name):
            fix = "a file name of up to 100 letters, digits, dots, dashes and underscores, without folders"
            raise InvalidRequest(f"{name!r}", where="file", fix=fix)
        path = self._folder / name
        try:
            self._folder.mkdir(exist_ok=True)
            if len(list(self._folder.iterdir())) >= MOST_BACKUPS:
                fix = "move some of them elsewhere"
                raise Overloaded(f"there are {MOST_BACKUPS} backups", where=self._folder.name, fix=fix)
            backup(path)
        except FileExistsError:
            raise InvalidRequest(f"there is a backup {name!r}", where="file", fix="another name") from None
        except OSError as error:
            raise StoreError(f"{error.strerror}", where=str(path), fix="a folder that can be written") from error
        return path
