"""The file of the auxiliary model on a client's disk: downloaded once, and resumed when a connection breaks."""

import os
from pathlib import Path

from fedbbpt.errors import ChecksumMismatch
from fedbbpt.host.files import sha256_of_file
from fedbbpt.types import Auxiliary


class AuxiliaryDownload:
    """A partial file that grows with each piece. It gets its final name once it is complete and its digest is right."""

    def __init__(self, folder: Path, announced: Auxiliary) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._announced = announced
        self.path = folder / f"auxiliary-{announced.sha256}.safetensors"
        self._partial = self.path.with_suffix(".partial")

    @property
    def done(self) -> bool:
        """Whether the complete file is there."""
        return self.path.exists()

    @property
    def fetched_bytes(self) -> int:
        """The size of the partial file, which may be from an earlier start of the client."""
        return self._partial.stat().st_size if self._partial.exists() else 0

    def add(self, data: bytes) -> None:
        """Appends a piece to the partial file."""
        with self._partial.open("ab") as file:
            file.write(data)

    def finish(self) -> Path:
        """Returns the complete file. Raises ChecksumMismatch, after it has removed a file with a wrong digest."""
        with self._partial.open("ab") as file:
            os.fsync(file.fileno())
        if sha256_of_file(self._partial) != self._announced.sha256:
            self._partial.unlink()
            raise ChecksumMismatch("the auxiliary model was corrupted during the download", where="auxiliary.sha256")
        self._partial.replace(self.path)
        return self.path
