"""Runs `fedbbpt` commands as real processes, and finds processes that are still running."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

END_SECONDS = 240.0
"""A generous limit: waiting ends with the event itself."""


class Machine:
    """Commands that a test starts in one folder, each with a log. All are killed at the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, *arguments: str, descriptors: int | None = None) -> None:
        """Starts `fedbbpt ARGUMENTS`, which may open at most so many file descriptors."""
        limit = [] if descriptors is None else ["prlimit", f"--nofile={descriptors}"]
        with (self.folder / f"{name}.log").open("a") as log:
            self._running[name] = subprocess.Popen(
                [*limit, sys.executable, "-m", "fedbbpt", *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def address(self, name: str) -> str:
        """Waits until a service listens, and returns its address."""
        stdout = self._running[name].stdout
        assert stdout is not None
        line = stdout.readline()
        assert "listens on" in line, self.log(name)
        return line.split()[-1]

    def until_log(self, name: str, words: str, times: int = 1) -> None:
        """Waits until a process has logged the words so many times."""
        give_up = time.monotonic() + END_SECONDS
        while self.log(name).count(words) < times:
            assert self._running[name].poll() is None, self.log(name)
            assert time.monotonic() < give_up, f"{name} never logged {words!r}:\n{self.log(name)}"
            time.sleep(0.02)

    def send(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kills a process with signal 9."""
        self._running[name].kill()
        self.wait(name)

    def end(self, name: str) -> int:
        """Terminates a process and returns its exit code."""
        self._running[name].terminate()
        return self.wait(name)

    def wait(self, name: str) -> int:
        process = self._running.pop(name)
        process.communicate(timeout=END_SECONDS)
        return process.returncode

    def rename(self, name: str, to: str) -> None:
        """Gives a process the name of one that has ended. Its log keeps the old name."""
        self._running[to] = self._running.pop(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._running):
            self.kill(name)


class Launcher:
    """A process of `fedbbpt run`. Every process of the run has `out` in its command line."""

    def __init__(self, job_file: Path, out: Path) -> None:
        self.out, self.said = out, ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedbbpt", "run", str(job_file), "--out", str(out), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def until_it_says(self, words: str) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"the run ended and never said {words!r}:\n{self.said}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        _, rest = self._process.communicate(timeout=END_SECONDS)
        self.said += rest
        return self._process.returncode

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def mentioning(words: str) -> list[int]:
    """Returns the processes whose command line holds `words`, except this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            if words in command:
                found.append(int(entry.name))
    return found


def wait_for_end(pids: Iterable[int]) -> None:
    """Waits until all processes have ended. They need not be children of this one."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], END_SECONDS)
        os.close(descriptor)
        assert ended, f"process {pid} lives on"


def free_port() -> int:
    """Returns a free port below the range of outgoing connections, so that it stays free between two servers."""
    for port in range(20_000 + os.getpid() % 8_000, 30_000):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
