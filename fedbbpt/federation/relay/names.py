"""The names of a site's clients and the keys that they belong to, in a file that outlives the relay."""

import hashlib
import json
import secrets
from pathlib import Path

from fedbbpt.errors import ClientIdTaken, InvalidInput, StoreError
from fedbbpt.host.files import atomic_write
from fedbbpt.types import Hello

NAMES = "names.json"
"""The file in the relay's folder."""
_OWNER_ONLY = 0o600


class SiteNames:
    """Each name belongs to the first key that joined with it, also after a restart. Only digests of keys are kept."""

    def __init__(self, file: Path | None = None) -> None:
        """Reads the file; without one, names are kept in memory.

        Raises InvalidInput if the file is damaged, since all names would be free.
        """
        self._file = file
        fix = f"the file as the relay wrote it; without {NAMES} all names are free"
        try:
            self._keys = dict[str, str](json.loads(file.read_text(encoding="utf-8"))) if file and file.exists() else {}
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"not the names of a site: {error}", where=str(file), fix=fix) from None

    def take(self, hello: Hello) -> None:
        """Lets the client have its name. Raises ClientIdTaken if it belongs to another key, and StoreError."""
        name, digest = hello.client_id, hashlib.sha256(hello.client_key.encode()).hexdigest()
        if name not in self._keys:
            self._write({**self._keys, name: digest})
        elif not secrets.compare_digest(self._keys[name], digest):
            fix = f"another --name, the --state of that client, or `fedbbpt members remove {name}`"
            raise ClientIdTaken("a client with another key has this name", where=name, fix=fix)

    def free(self, name: str) -> bool:
        """Frees a name, and returns whether it was taken. Raises StoreError."""
        if name not in self._keys:
            return False
        self._write({taken: key for taken, key in self._keys.items() if taken != name})
        return True

    def _write(self, keys: dict[str, str]) -> None:
        try:
            if self._file is not None:
                atomic_write(self._file, json.dumps(keys, indent=2) + "\n", mode=_OWNER_ONLY)
        except OSError as error:
            raise StoreError(error.strerror or str(error), where=str(self._file), fix="a disk with space") from None
        self._keys = keys
