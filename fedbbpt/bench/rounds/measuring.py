"""What every measurement of rounds shares: the processes that it starts, and their certificate."""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fedbbpt.errors import ChildFailed, InvalidInput
from fedbbpt.wire.tls import ClientTls, ServerTls

WARM_ROUNDS = 3
"""The first rounds, in which connections settle and caches fill, are not counted."""
FLUSHES = 30
ANSWER_SECONDS = 120.0
"""How long a measurement may take to say something."""

Progress = Callable[[str], None]
"""Receives what is measured next."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and a self-signed certificate for this machine."""

    key: Path
    certificate: Path

    @property
    def server(self) -> ServerTls:
        """The server's side."""
        return ServerTls(self.certificate, self.key)

    @property
    def client(self) -> ClientTls:
        """The clients' side."""
        return ClientTls(self.certificate)


def make_certificate(folder: Path) -> Certificate:
    """Makes a certificate for the measurements. Raises InvalidInput without the program openssl."""
    if shutil.which("openssl") is None:
        raise InvalidInput("the program openssl is missing", where="bench rounds", fix="install openssl")
    made = Certificate(folder / "key.pem", folder / "certificate.pem")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    words += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return made


class Crew:
    """Functions that run in processes of their own, and end with this process."""

    def __init__(self) -> None:
        # The processes are forked from one that has imported everything and started no thread.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["fedbbpt.bench.rounds.barrier", "fedbbpt.bench.rounds.lean_clients", "fedbbpt.bench.rounds.own_clients"]
        )
        self._processes: list[Any] = []

    def start(self, work: Callable[..., None], *arguments: Any) -> Connection:
        """Starts `work(connection, *arguments)` and returns the other end of its connection."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_run, args=(work, theirs, arguments), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(process)
        return ours

    def close(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._processes.clear()


@contextmanager
def crew() -> Iterator[Crew]:
    """Yields a crew that ends with the block."""
    made = Crew()
    try:
        yield made
    finally:
        made.close()


def _run(work: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a crew starts processes"

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    work(connection, *arguments)


def told(connection: Connection, who: str, seconds: float = ANSWER_SECONDS) -> Any:
    """Waits for the next message of a process. Raises ChildFailed if it has died or says nothing."""
    try:
        if connection.poll(seconds):
            return connection.recv()
    except EOFError:
        raise ChildFailed(f"{who} ended before its measurement", where="bench rounds") from None
    raise ChildFailed(f"{who} said nothing for {seconds:g} s", where="bench rounds")


def flush_seconds(folder: Path) -> float:
    """Returns the median time of a flush of a small file to the disk: a round has one at the coordinator at least."""
    times = []
    with (folder / "flush").open("wb") as file:
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process so far, in the kernel and outside."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
