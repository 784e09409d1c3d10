"""A group of child processes that lives and dies together: nothing is left behind, however the parent ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fedbbpt.errors import ChildFailed

GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_TAIL_LINES = 15


class ProcessGroup:
    """Starts `fedbbpt` commands as processes.

    Each holds the reading end of a pipe; when the parent is gone, however it went, the pipe closes and the child ends
    itself (`end_with_parent`).
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[BinaryIO] = []

    def start(self, name: str, arguments: Sequence[str]) -> None:
        log = (self._logs / f"{name}.log").open("ab")
        self._files.append(log)
        with _ctrl_c_waits():  # or there could be a child that nobody knows of
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "fedbbpt", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the parent, which then ends its children in order.
                start_new_session=True,
                env={**os.environ, LIFELINE: "1"},
            )

    def ended(self) -> dict[str, int]:
        """Exit codes of the children that have ended, by name."""
        codes = {name: child.poll() for name, child in self._children.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def require(self, name: str) -> None:
        """Raises ChildFailed, with the end of its log, where the child has ended."""
        code = self.ended().get(name)
        if code is not None:
            path = self._logs / f"{name}.log"
            tail = "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise ChildFailed(f"{name} ended with code {code}:\n{tail}", where=str(path))

    def address(self, name: str, file: Path, limit_seconds: float) -> str:
        """What the child wrote to its address file, once it listens."""
        give_up = time.monotonic() + limit_seconds
        while not file.exists():
            self.require(name)
            if time.monotonic() > give_up:
                raise ChildFailed(f"{name} did not listen within {limit_seconds:.0f} s", where=str(self._logs / name))
            time.sleep(_LOOK_SECONDS)
        return file.read_text().strip()

    def wait(self, name: str) -> int:
        return self._children[name].wait()

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Asks all children to end, and ends those that do not."""
        with _ctrl_c_waits():  # a second one, by an impatient hand, must not leave processes behind
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
def _ctrl_c_waits() -> Iterator[None]:
    """A Ctrl-C inside takes effect at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            raise KeyboardInterrupt


LIFELINE = "FEDBBPT_LIFELINE"


def end_with_parent() -> None:
    """In a child of ProcessGroup: ends this process when the parent's end of the pipe closes. Elsewhere: nothing."""
    if not os.environ.pop(LIFELINE, ""):
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()
