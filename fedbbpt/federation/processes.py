"""A group of child processes that end together with their parent, however the parent ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO

from fedbbpt.errors import ChildFailed

GRACE_SECONDS = 5.0
"""Time that a child may take to end before it is killed."""
_POLL_SECONDS = 0.02
_TAIL_LINES = 15
"""Lines of a child's log that an error shows."""


class ProcessGroup:
    """Starts `fedbbpt` commands as child processes, and ends them when its `with` block ends.

    Each child holds the reading end of a pipe. When the parent is gone, even if it was killed, the pipe closes and the
    child ends itself (see `end_with_parent`).
    """

    def __init__(self, logs: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Creates the folder `logs`, in which each child gets a file NAME.log.

        Children have the variables of `environment` besides those of this process.
        """
        logs.mkdir(parents=True, exist_ok=True)
        self._logs, self._environment = logs, environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[BinaryIO] = []

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Starts `fedbbpt ARGUMENTS` as the child `name`. What it prints is appended to its log."""
        log = (self._logs / f"{name}.log").open("ab")
        self._files.append(log)
        with signals_deferred():  # so that no child is started but not recorded
            self._children[name] = subprocess.Popen(
                # -P: a queue.py of the user's in the working folder is not imported in place of Python's.
                [sys.executable, "-P", "-m", "fedbbpt", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal reaches only the parent, which then ends its children in order.
                start_new_session=True,
                env={**os.environ, **self._environment, LIFELINE: "1"},
            )

    def ended(self) -> dict[str, int]:
        """Returns the exit codes of the children that have ended, by name."""
        codes = {name: child.poll() for name, child in self._children.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def require(self, name: str) -> None:
        """Raises ChildFailed, with the end of the child's log, if the child has ended."""
        code = self.ended().get(name)
        if code is not None:
            path = self._logs / f"{name}.log"
            tail = "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise ChildFailed(f"{name} ended with code {code}:\n{tail}", where=str(path))

    def address(self, name: str, file: Path, limit_seconds: float) -> str:
        """Waits until the child listens, and returns the address that it wrote to `file`.

        Raises:
            ChildFailed: The child ended, or did not listen within `limit_seconds`.
        """
        give_up = time.monotonic() + limit_seconds
        while not file.exists():
            self.require(name)
            if time.monotonic() > give_up:
                raise ChildFailed(
                    f"{name} did not listen within {limit_seconds:.0f} s", where=str(self._logs / f"{name}.log")
                )
            time.sleep(_POLL_SECONDS)
        return file.read_text().strip()

    def wait(self, name: str) -> int:
        """Waits until the child ends, and returns its exit code."""
        return self._children[name].wait()

    def pid(self, name: str) -> int:
        """Returns the child's process id."""
        return self._children[name].pid

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Asks all children to end, and kills those that do not end within GRACE_SECONDS."""
        with signals_deferred():  # a second signal must not leave processes behind
            for child in self._children.values():
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
            give_up = time.monotonic() + GRACE_SECONDS
            for child in self._children.values():
                try:
                    child.wait(max(0.0, give_up - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                if child.stdin is not None:
                    child.stdin.close()
            for file in self._files:
                file.close()


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defers Ctrl-C and SIGTERM until the end of the `with` block. Only the main thread receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked[0])


LIFELINE = "FEDBBPT_LIFELINE"
"""Environment variable that tells a child to end with its parent."""


def end_with_parent() -> None:
    """Makes a child of ProcessGroup end when its parent does. Has no effect on any other process."""
    if not os.environ.pop(LIFELINE, ""):
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()
