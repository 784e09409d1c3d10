"""The file of the auxiliary model on a client's disk: downloaded once, and resumed when a connection breaks."""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fedbbpt.errors import ChecksumMismatch
from fedbbpt.types import Auxiliary

_READ_BYTES = 2**20
_WAITING = 16
"""How many pieces may wait for their digest, so that a fast connection does not fill the memory."""


class AuxiliaryDownload:
    """A partial file that grows with each piece. It gets its final name once it is complete and its digest is right.

    The digest is computed in a thread of its own while further pieces arrive, since it takes as long as they do. Use it
    as a context manager, which closes the file.
    """

    def __init__(self, folder: Path, announced: Auxiliary) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._announced = announced
        self.path = folder / f"auxiliary-{announced.sha256}.safetensors"
        self._partial = self.path.with_suffix(".partial")
        self._begin()

    def _begin(self) -> None:
        self._file = self._partial.open("ab+", buffering=0)
        self.fetched_bytes = os.fstat(self._file.fileno()).st_size
        """The size of the partial file."""
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="auxiliary digest")
        self._waiting: deque[Future[None]] = deque()
        if self.fetched_bytes:  # perhaps from an earlier start of the client
            self._waiting.append(self._thread.submit(self._add_file, self.fetched_bytes))

    def _add_file(self, size: int) -> None:
        with self._partial.open("rb") as file:
            while size > 0 and (data := file.read(min(size, _READ_BYTES))):
                self._digest.update(data)
                size -= len(data)

    def __enter__(self) -> "AuxiliaryDownload":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._thread.shutdown()
        if not self.fetched_bytes:
            self._partial.unlink(missing_ok=True)

    @property
    def done(self) -> bool:
        """Whether the complete file is there."""
        return self.path.exists()

    def add(self, data: bytes) -> None:
        """Appends a piece to the partial file."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.fetched_bytes += len(data)
        self._waiting.append(self._thread.submit(self._digest.update, data))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def finish(self) -> Path:
        """Returns the complete file. Raises ChecksumMismatch, after it has removed a file with a wrong digest."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._thread.shutdown()
        if self._digest.hexdigest() != self._announced.sha256:
            self._partial.unlink()
            self._begin()
            raise ChecksumMismatch("the auxiliary model was corrupted during the download", where="auxiliary.sha256")
        self._partial.replace(self.path)
        return self.path
