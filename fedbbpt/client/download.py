"""The auxiliary model on a client's disk: fetched once, in pieces that a broken line does not lose."""

import hashlib
import os
from pathlib import Path

from fedbbpt.errors import ChecksumMismatch
from fedbbpt.types import Auxiliary


class Download:
    """A file that grows; it gets its name, which is its digest, when it is whole and right."""

    def __init__(self, folder: Path, announced: Auxiliary) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._announced = announced
        self.path = folder / f"auxiliary-{announced.sha256}.safetensors"
        self._partial = self.path.with_suffix(".partial")

    @property
    def done(self) -> bool:
        return self.path.exists()

    @property
    def fetched_bytes(self) -> int:
        """What is here of it, also from before a restart."""
        return self._partial.stat().st_size if self._partial.exists() else 0

    def add(self, data: bytes) -> None:
        with self._partial.open("ab") as file:
            file.write(data)

    def finish(self) -> Path:
        """Raises ChecksumMismatch, and has nothing any more then."""
        with self._partial.open("ab+") as file:
            os.fsync(file.fileno())
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._announced.sha256:
            self._partial.unlink()
            raise ChecksumMismatch("the auxiliary model was changed on its way", where="auxiliary.sha256")
        self._partial.replace(self.path)
        return self.path
