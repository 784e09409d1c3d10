"""A small federation whose clients a test moves by hand: by function calls, over gRPC, or over gRPC with TLS.

A test decides which client acts next and when time passes; nothing happens by itself. The same script can run over
every kind of link, and must end with the same bits.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import SessionUnknown, UnknownRound
from fedbbpt.federation import assemble
from fedbbpt.federation.splits import Splits
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.interfaces import Link, Ptm, Store
from fedbbpt.job.settings import run_settings
from fedbbpt.server.backup_folder import BackupFolder
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.remote import RemoteRun
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import HEARTBEAT_SECONDS, CoordinatorServer, serve
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.types import Hello, Receipt, Report, Result, RunSettings, RunStatus, Task, TaskId, Update
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tls import ClientTls, ServerTls
from fedbbpt.wire.traffic import TrafficMeter
from tests.tiny_run import CLIENTS, Course, fake_ptm

T = TypeVar("T")

RUN_ID = "run-1"


class Client:
    """One client: its link to the coordinator, and its agent with its share of the data."""

    def __init__(self, link: Link, hello: Hello, splits: Splits, index: int, ptm: Ptm) -> None:
        self.link, self.hello = link, hello
        self.settings: RunSettings = link.join(hello)
        train, dev = (parts[index % len(parts)] for parts in (splits.train, splits.dev))
        self.agent = assemble.client(self.settings, train, dev, ptm)
        self._tasks: Any = link.tasks()

    def task(self) -> Task:
        """Waits for the next task and returns it."""
        task: Task = next(self._tasks)
        return task

    def tasks(self) -> Iterator[Task]:
        """Waits for each further task and yields it, until the run ends."""
        yield from self._tasks

    def finished(self) -> bool:
        """Waits for the next task, and returns true if the run ended instead."""
        return next(self._tasks, None) is None

    def submit(self, task: Task) -> Receipt:
        """Answers a task and submits the update."""
        return self.link.submit(task.id, self.agent.answer(task))

    def answer(self) -> Receipt:
        """Waits for the next task, and submits its update."""
        return self.submit(self.task())

    def hang_up(self) -> None:
        """Ends the stream of tasks, as the death of the client's process does."""
        self._tasks.close()


def play(clients: Sequence[Client], rounds: int) -> None:
    """Lets all clients answer in turn, and asserts that every update counts."""
    for _ in range(rounds):
        for client in clients:
            assert client.answer() is Receipt.COUNTED


class Federation(ABC):
    """A coordinator with its database in a file, and the clients that a test lets join."""

    max_update_bytes = 10_000
    """A limit that a test can reach."""

    def __init__(self, splits: Splits, path: Path) -> None:
        self.splits, self._path, self._ptm = splits, path, fake_ptm()

    def client(self, index: int, key: str = "key", link: Link | None = None, ptm: Ptm | None = None) -> Client:
        """Returns a client that has joined."""
        examples = len(self.splits.train[index % len(self.splits.train)])
        hello = assemble.hello(assemble.client_name(index), key, examples)
        return Client(link or self.link(index), hello, self.splits, index, ptm or self._ptm)

    def clients(self) -> list[Client]:
        """Returns as many clients as the run waits for."""
        return [self.client(index) for index in range(CLIENTS)]

    def until(self, holds: Callable[[RunStatus], bool]) -> RunStatus:
        """Returns the first status for which `holds` is true."""
        for status, _ in self.watch():
            if holds(status):
                return status
        raise AssertionError("the condition never held")

    def course(self) -> Course:
        """Returns the course of a run that has ended or is about to."""
        seen: list[Report] = []
        for status, news in self.watch():
            seen += news
            if status.state.ended:
                return Course.of(self.result(), seen)
        raise AssertionError("the run has not ended")

    def record(self) -> RunRecord:
        """Returns the row that identifies the run in its database."""
        return RunRecord(RUN_ID, self.splits.job.run.seed, self.splits.job.digest(""), "2026-01-01T00:00:00+00:00")

    def _open_store(self) -> Store:
        """Opens the database. Tests override this to use another store."""
        return SqliteStore(self._path, self.record())

    def _open(self, traffic: TrafficMeter) -> Coordinator:
        """Opens the database, and returns the coordinator of the run in it."""
        self._store = self._open_store()
        settings = replace(run_settings(self.splits.job, RUN_ID), max_update_bytes=self.max_update_bytes)
        return assemble.coordinator(self.splits.job, settings, self._store, traffic.read)

    @abstractmethod
    def link(self, index: int = 0) -> Link:
        """Returns a new link to the coordinator, of the client with this number."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Puts the coordinator's clock forward."""

    @abstractmethod
    def restart(self) -> None:
        """Stops the coordinator wherever it is, and starts another one from its database."""

    @abstractmethod
    def watch(self) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]:
        """Yields each status of the run with the reports since the last."""

    @abstractmethod
    def result(self) -> Result:
        """Returns the best prompt so far."""

    @abstractmethod
    def close(self) -> None:
        """Stops the coordinator and closes its database."""


class InProcess(Federation):
    """The coordinator and its clients in one thread."""

    def __init__(self, splits: Splits, path: Path) -> None:
        super().__init__(splits, path)
        self.now = 0.0
        self._start()

    def _start(self) -> None:
        self.coordinator = self._open(TrafficMeter())
        self.coordinator.tick(self.now)

    def link(self, index: int = 0) -> "FunctionLink":
        return FunctionLink(self)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.tick(self.now)

    def restart(self) -> None:
        self.close()
        self._start()

    def watch(self) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]:
        yield self.coordinator.status(), self.coordinator.reports(0)

    def result(self) -> Result:
        return self.coordinator.result()

    def close(self) -> None:
        self._store.close()


class FunctionLink:
    """Implements `interfaces.Link` to a coordinator in this thread."""

    def __init__(self, federation: InProcess) -> None:
        self._federation = federation
        self._session = ""

    def join(self, hello: Hello) -> RunSettings:
        self._hello = hello
        self._session, settings = self._federation.coordinator.join(hello, self._federation.now)
        return settings

    def tasks(self) -> Iterator[Task]:
        connected, told = "", None
        try:
            while not self._federation.coordinator.state.ended:
                task = self._with_session(lambda c: c.task_for(self._session))
                if connected != self._session:
                    connected = self._session
                    self._federation.coordinator.connected(connected)
                assert task is not None and task.id != told, "no task is open, and waiting brings none"
                told = task.id
                yield task
        finally:
            self._federation.coordinator.disconnected(connected)

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        try:
            return self._with_session(lambda c: c.submit(self._session, task_id, update, self._federation.now))
        except UnknownRound:
            return Receipt.TOO_LATE

    def report_trouble(self, text: str) -> None:
        self._with_session(lambda c: c.report_trouble(self._session, text, 0.0, self._federation.now))

    def leave(self) -> None:
        self._federation.coordinator.leave(self._session, self._federation.now)

    def _with_session(self, call: Callable[[Coordinator], T]) -> T:
        try:
            return call(self._federation.coordinator)
        except SessionUnknown:
            self.join(self._hello)
            return call(self._federation.coordinator)


class AdvancingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can put forward, so that deadlines pass when the test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_seconds = 0.0

    def time(self) -> float:
        return super().time() + self._ahead_seconds

    async def advance(self, seconds: float) -> None:
        """Puts the clock forward."""
        self._ahead_seconds += seconds


MAX_CLIENTS = 100
"""How many clients have tokens."""


@dataclass(frozen=True)
class Security:
    """The TLS settings of both ends, and the token of the operator. Each client has one of its own."""

    server: ServerTls
    client: ClientTls
    token: str

    def token_of(self, index: int) -> str:
        """Returns the token of a client."""
        return f"{self.token}-{index}"

    def tokens(self) -> list[Token]:
        """Returns all tokens, as the coordinator knows them."""
        clients = [
            Token(assemble.client_name(index), Role.CLIENT, token_digest(self.token_of(index)))
            for index in range(MAX_CLIENTS)
        ]
        return [*clients, Token("operator", Role.OPERATOR, token_digest(self.token))]


class OverGrpc(Federation):
    """The coordinator's services on a loopback port, in the event loop of another thread."""

    def __init__(
        self,
        splits: Splits,
        path: Path,
        loop: AdvancingLoop,
        security: Security | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        super().__init__(splits, path)
        self._loop, self._security, self._heartbeat_seconds = loop, security, heartbeat_seconds
        self._start(port=0)

    def _start(self, port: int) -> None:
        traffic = TrafficMeter()
        coordinator = self._open(traffic)
        tls, tokens = (self._security.server, self._security.tokens()) if self._security else (None, None)
        self._serving: CoordinatorServer = self._run(
            serve(
                Runs([LiveRun(coordinator, traffic, backups=BackupFolder(self._path.parent / "backups"))]),
                port=port,
                tls=tls,
                tokens=tokens,
                heartbeat_seconds=self._heartbeat_seconds,
                watch_seconds=0.0,
            )
        )
        self.port = self._serving.port

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def channel(self, port: int | None = None, token: str | None = None, client: int | None = None) -> Any:
        """Returns a channel to the coordinator, or to a proxy's `port`, of an operator or of a client."""
        if self._security is not None and client is not None:
            token = self._security.token_of(client)
        address = f"127.0.0.1:{port or self.port}"
        if self._security is None:
            return connect(address, token=token or "")
        return connect(address, self._security.client, self._security.token if token is None else token)

    def link(self, index: int = 0) -> RemoteCoordinator:
        return RemoteCoordinator(self.channel(client=index))

    def advance(self, seconds: float) -> None:
        self._run(self._loop.advance(seconds))

    def restart(self) -> None:
        self.close()
        self._start(self.port)

    def watch(self) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]:
        return RemoteRun(self.channel()).watch()

    def result(self) -> Result:
        return RemoteRun(self.channel()).result()

    def close(self) -> None:
        self._run(self._serving.stop(grace_seconds=0.0))
        self._store.close()
