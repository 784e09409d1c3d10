"""Files that survive a crash: atomic writes, durable names, and digests."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Replaces the file at `path`, so that a reader or a crash finds the old content or the new, never a mixture.

    The new content is on disk when this returns.

    Args:
        path: The file. Its folder must exist.
        data: The content; a `str` is encoded as UTF-8.
        mode: The permissions of the file, reduced by the process's umask. 0o600 keeps a secret from other users.

    Raises:
        OSError: The file could not be written. The old content is still there.
    """
    with atomic_writer(path, mode=mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_writer(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Opens a new version of the file at `path`, which replaces it when the `with` block ends without an error.

    The new content is first written to NAME.partial in the same folder. Arguments and errors are those of
    `atomic_write`.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    except OSError as error:
        # Names what the user wrote, or the missing folder, and not the partial file.
        error.filename = str(path if path.parent.is_dir() else path.parent)
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: after a crash, its new and renamed files are found under those names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 digest of a file's content as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
