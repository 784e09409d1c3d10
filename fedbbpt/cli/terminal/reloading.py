"""Reads tokens, tenants and certificates again while a role runs: at SIGHUP, and when one of the files has changed."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbbpt.cli.terminal.logs import reopen_log_files
from fedbbpt.errors import FedbbptError

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""Interval at which the files are looked at."""


class Reloading:
    """Watches files from its creation on, which comes before they are read, so that no change is missed.

    SIGHUP opens the log file anew as well, which a program that rotates logs may have moved.
    """

    def __init__(self, files: Sequence[Path | None]) -> None:
        """Watches `files`; None stands for an option that was not given."""
        self._files = [path for path in files if path is not None]
        self._seen, self._asked, self._ended = self._stamps(), threading.Event(), threading.Event()
        signal.signal(signal.SIGHUP, lambda number, frame: self._asked.set())

    def _stamps(self) -> list[tuple[int, ...]]:
        return [_stamp(path) for path in self._files]

    @contextmanager
    def by(self, reload: Callable[[], None]) -> Iterator[None]:
        """Calls `reload`, in a thread of its own, at each SIGHUP and after each change of a file.

        If it raises a FedbbptError, the role goes on with what it had, and the log says so.
        """
        threading.Thread(target=self._watch, args=(reload,), daemon=True, name="reload").start()
        try:
            yield
        finally:
            self._ended.set()
            self._asked.set()

    def _watch(self, reload: Callable[[], None]) -> None:
        while not self._ended.is_set():
            now, signalled = self._stamps(), self._asked.is_set()
            self._asked.clear()
            if signalled:
                reopen_log_files()
            if signalled or now != self._seen:
                self._seen = now
                self._attempt(reload)
            self._asked.wait(POLL_SECONDS)

    def _attempt(self, reload: Callable[[], None]) -> None:
        names = ", ".join(map(str, self._files))
        try:
            reload()
        except FedbbptError as error:
            log.error("not read again, and the old ones stay in use: %s", error)
        else:
            log.info("read again: %s", names or "nothing, as no option names tokens, tenants or certificates")


def on_loop(reload: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Returns a function for other threads that runs the coroutine on this thread's event loop, and waits for it."""
    loop = asyncio.get_running_loop()
    return lambda: asyncio.run_coroutine_threadsafe(reload(), loop).result()


def _stamp(path: Path) -> tuple[int, ...]:
    """Returns what changes when the file does; follows links, as those of secrets in Kubernetes."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
