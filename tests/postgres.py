"""A real PostgreSQL server on this machine, for tests: it runs without a password in a folder of its own.

Debian: `apt-get install postgresql`. Elsewhere, put its programs on PATH.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

UNPRIVILEGED = "nobody"
"""Runs the server if the tests run as root, which it refuses."""


def programs() -> Path | None:
    """Returns the folder of PostgreSQL's programs, or None if it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    folders = [*debian[-1:], *([Path(found).resolve().parent] if found else [])]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresServer:
    """A server that a test can stop, kill and start again."""

    user = "fedbbpt"

    def __init__(self, bin: Path, folder: Path, port: int) -> None:
        self._bin, self._folder, self._port, self._runs = bin, folder, port, False

    def url(self, schema: str) -> str:
        """Creates a schema, and returns the URL of a store in it."""
        self.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        return f"postgresql://{self.user}@127.0.0.1:{self._port}/postgres?options=-csearch_path%3D{schema}"

    def sql(self, statement: str) -> str:
        """Executes a statement, and returns what it prints."""
        words = ["-h", "127.0.0.1", "-p", str(self._port), "-U", self.user, "-d", "postgres", "-tA", "-c", statement]
        return self._run("psql", words)

    def end_sessions(self) -> None:
        """Ends the sessions that have a store, as a broken network does once the server has noticed it."""
        self.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted")

    def start(self) -> None:
        """Starts the server, if it does not run, and waits until it answers."""
        if self._runs:
            return
        settings = f"-c listen_addresses=127.0.0.1 -p {self._port} -k {self._folder} -c fsync=off"
        self._runs = True
        self._control("-l", str(self._folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stops the server at once, and breaks all connections."""
        self._runs = False
        self._control("-m", "immediate", "stop")

    def create(self) -> None:
        """Creates the files of the server."""
        self._run(
            "initdb",
            ["-D", str(self._folder / "data"), "-U", self.user, "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
        )

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", ["-D", str(self._folder / "data"), "-w", *words])

    def _run(self, program: str, words: Sequence[str]) -> str:
        # A program changes the user, because subprocess would fork for that, in a process with threads of gRPC.
        change = ["setpriv", f"--reuid={UNPRIVILEGED}", "--clear-groups"] if os.geteuid() == 0 else []
        # Not through pipes: the server would inherit them, and reading them would never end.
        with tempfile.TemporaryFile("w+") as output:
            command = [*change, str(self._bin / program), *words]
            done = subprocess.run(command, cwd="/", stdout=output, stderr=output, check=False)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, f"{program} ended with {done.returncode}: {text}"
        return text.strip()


@contextmanager
def running(bin: Path) -> Iterator[PostgresServer]:
    """Runs a server."""
    folder = Path(tempfile.mkdtemp(prefix="fedbbpt-postgres-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = PostgresServer(bin, folder, port)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.start()
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
