"""A small federation whose clients are moved by hand: over function calls, over gRPC, over gRPC with TLS and a token.

A test says who does what next, and when time passes; nothing happens by itself. So one script runs over every line, and
must end with the same bits.

Long because the lines are one thing seen in three ways.
"""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import SessionUnknown, UnknownRound
from fedbbpt.federation import assemble
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Link, Ptm, RunSettings, Store
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.remote import RemoteRun
from fedbbpt.server.service import HEARTBEAT_SECONDS, CoordinatorServer, serve
from fedbbpt.server.store import RunRecord, SqliteStore
from fedbbpt.types import Hello, Receipt, Report, Result, RunStatus, Task, TaskId, Update
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tls import ClientTls, ServerTls
from fedbbpt.wire.traffic import TrafficMeter
from tests.tenants import local_ptm

T = TypeVar("T")

CLIENTS = 3
ROUNDS = 4
DEADLINE_SECONDS = 60.0
RUN_ID = "run-1"


def write_data(folder: Path) -> Path:
    """Two classes, 30 texts, the same to train, to choose and to test on: what is learnt shows."""
    draw = np.random.default_rng(5)
    words = {"number": "how many much count total years ten", "place": "where city country near river map town"}
    shared = "is the of in a it there"
    rows = [
        {"text": " ".join(draw.choice(f"{own} {shared}".split(), 5)), "label": label}
        for label, own in words.items()
        for _ in range(15)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job(
    data: Path, *, rounds: int = ROUNDS, method: str = "fed-cma", codec: str = "float32", clients: int = CLIENTS
) -> Job:
    """Three clients of which two are a quorum, and a model that answers in microseconds."""
    search: dict[str, dict[str, object]] = {
        "fed-cma": {"population": 6, "sigma": 0.5},
        "fed-bpt": {"local_iterations": 2, "sigma": 0.5},
        "fed-bbpt": {"local_steps": 2, "estimates": 2},
        "fedavg-bbt": {"local_population": 6, "local_iterations": 2, "sigma": 0.5},
    }
    return Job.model_validate(
        {
            "run": {"name": "tiny", "rounds": rounds},
            "ptm": {"model": "fake"},
            "task": {"prompt": {"tokens": 4, "dim": 6}},
            "data": {"source": str(data), "shots_per_class": 0, "dev_shots_per_class": 0, "partition": "iid"},
            "cohort": {"clients": clients, "quorum": 0.6, "deadline_seconds": DEADLINE_SECONDS},
            "method": {"name": method, **search[method]},
            "codec": {"uplink": codec},
        }
    )


def job_of_prefixes(job: Job, model: Path) -> Job:
    """The same federation with models to train: fed-sp over a tiny Llama, whose owner has a shard."""
    sections = job.model_dump()
    sections["ptm"] |= {"model": str(model), "threads": 1}
    sections["task"] |= {"template": "{text} is a{mask}", "labels": ["number", "place"]}
    sections["task"] |= {"classes": [" number", " place in paris"]}
    sections["task"]["prompt"] = {"kind": "deep", "tokens": 3, "layers": 2, "heads": 2, "width": 8}
    sections["data"] |= {"server_share": 0.3}
    sections["method"] = {"name": "fed-sp", "distill_steps": 2, "local_steps": 2, "batch_size": 4}
    return Job.model_validate(sections)


def job_of_words(job: Job, *, size: int = 0) -> Job:
    """The same federation in search of three words, out of the server's own examples; `size` clients a round."""
    sections = job.model_dump()
    sections["task"]["prompt"] = {"kind": "text", "words": 3, "vocabulary": 12}
    sections["data"] |= {"server_share": 0.4}
    sections["cohort"] |= {"size": size}
    sections["method"] = {"name": "fed-bbpt", "generator": "categorical", "local_steps": 2, "learning_rate": 0.05}
    return Job.model_validate(sections)


@dataclass(frozen=True)
class Course:
    """All that a run decides: the prompt's bits, and what each round measured, but for time and bytes."""

    z: bytes
    reports: tuple[Report, ...]

    @classmethod
    def of(cls, result: Result, reports: Sequence[Report]) -> "Course":
        timeless: dict[str, Any] = {"seconds": 0.0, "bytes_up": None, "bytes_down": None}
        return cls(result.z.tobytes(), tuple(replace(report, **timeless) for report in reports))

    @property
    def clients(self) -> list[int]:
        """How many were counted in each round."""
        return [report.clients for report in self.reports]


def fake_ptm() -> LocalPtm:
    return local_ptm(Fake(), time.monotonic)


def undisturbed(splits: Splits) -> Course:
    return Course.of(*simulate(splits, fake_ptm(), lambda status: None))


class Client:
    """One client's link, and its agent with its share of the data."""

    def __init__(self, link: Link, hello: Hello, splits: Splits, index: int, ptm: Ptm) -> None:
        self.link, self.hello = link, hello
        self.settings: RunSettings = link.join(hello)
        train, dev = splits.train[index % CLIENTS], splits.dev[index % CLIENTS]
        self.agent = assemble.client(self.settings, train, dev, ptm)
        self._tasks: Any = link.tasks()

    def task(self) -> Task:
        """Waits for it."""
        task: Task = next(self._tasks)
        return task

    def finished(self) -> bool:
        """Waits for what comes next; true where it is the end of the run."""
        return next(self._tasks, None) is None

    def submit(self, task: Task) -> Receipt:
        return self.link.submit(task.id, self.agent.answer(task))

    def answer(self) -> Receipt:
        return self.submit(self.task())

    def hang_up(self) -> None:
        """The stream ends, as it does when a process dies; the link knows no more tasks."""
        self._tasks.close()


def play(clients: Sequence[Client], rounds: int) -> None:
    for _ in range(rounds):
        for client in clients:
            assert client.answer() is Receipt.COUNTED


class Federation(ABC):
    """A coordinator on a database in a file, and the clients that a test lets in."""

    def __init__(self, splits: Splits, path: Path) -> None:
        self.splits, self._path, self._ptm = splits, path, fake_ptm()

    def client(self, index: int, key: str = "key", link: Link | None = None, ptm: Ptm | None = None) -> Client:
        hello = assemble.hello(assemble.client_name(index), key, len(self.splits.train[index % CLIENTS]))
        return Client(link or self.link(), hello, self.splits, index, ptm or self._ptm)

    def clients(self) -> list[Client]:
        """As many as the run waits for."""
        return [self.client(index) for index in range(CLIENTS)]

    def until(self, holds: Callable[[RunStatus], bool]) -> RunStatus:
        """The status, once it is so."""
        for status, _ in self.watch():
            if holds(status):
                return status
        raise AssertionError("the run is not as it should be, and nothing will change that")

    def course(self) -> Course:
        """Of a run that has ended, or ends by itself."""
        seen: list[Report] = []
        for status, news in self.watch():
            seen += news
            if status.state.ended:
                return Course.of(self.result(), seen)
        raise AssertionError("the run has not ended")

    def record(self) -> RunRecord:
        return RunRecord(RUN_ID, self.splits.job.run.seed, self.splits.job.digest(""), "2026-01-01T00:00:00+00:00")

    def _open_store(self) -> Store:
        return SqliteStore(self._path, self.record())

    def _coordinator(self, store: Store, traffic: TrafficMeter) -> Coordinator:
        job = self.splits.job
        settings = replace(run_settings(job, RUN_ID), max_update_bytes=10_000)
        return assemble.coordinator(job, settings, store, traffic.read)

    @abstractmethod
    def link(self) -> Link: ...

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Puts the coordinator's clock forward."""

    @abstractmethod
    def restart(self) -> None:
        """The coordinator stops in the midst of things, and comes back with what it stored."""

    @abstractmethod
    def watch(self) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]: ...

    @abstractmethod
    def result(self) -> Result: ...

    @abstractmethod
    def close(self) -> None: ...


class InProcess(Federation):
    """Everybody in one thread."""

    def __init__(self, splits: Splits, path: Path) -> None:
        super().__init__(splits, path)
        self.now = 0.0
        self._start()

    def _start(self) -> None:
        self._store = self._open_store()
        self.coordinator = self._coordinator(self._store, TrafficMeter())
        self.coordinator.tick(self.now)

    def link(self) -> "FunctionLink":
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
    """`interfaces.Link` to a coordinator in this thread."""

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
                assert task is not None and task.id != told, "there is no task, and none will come"
                told = task.id
                yield task
        finally:
            self._federation.coordinator.disconnected(connected)

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        try:
            return self._with_session(lambda c: c.submit(self._session, task_id, update, self._federation.now))
        except UnknownRound:
            return Receipt.TOO_LATE

    def leave(self) -> None:
        self._federation.coordinator.leave(self._session, self._federation.now)

    def _with_session(self, call: Callable[[Coordinator], T]) -> T:
        try:
            return call(self._federation.coordinator)
        except SessionUnknown:
            self.join(self._hello)
            return call(self._federation.coordinator)


class AdvancingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward, so that deadlines pass when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_seconds = 0.0

    def time(self) -> float:
        return super().time() + self._ahead_seconds

    async def advance(self, seconds: float) -> None:
        self._ahead_seconds += seconds


@dataclass(frozen=True)
class Security:
    """Both ends of TLS, and the token that clients must show."""

    server: ServerTls
    client: ClientTls
    token: str


class OverGrpc(Federation):
    """The services on a loopback port, in an event loop of another thread."""

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
        self._store, traffic = self._open_store(), TrafficMeter()
        coordinator = self._coordinator(self._store, traffic)
        tls, tokens = (self._security.server, [self._security.token]) if self._security else (None, [])
        self._serving: CoordinatorServer = self._run(
            serve(coordinator, traffic, port=port, tls=tls, tokens=tokens, heartbeat_seconds=self._heartbeat_seconds)
        )
        self.port = self._serving.port

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def channel(self, port: int | None = None, token: str | None = None) -> Any:
        """To the coordinator, perhaps by way of another port, perhaps with another token."""
        address = f"127.0.0.1:{port or self.port}"
        if self._security is None:
            return connect(address, token=token or "")
        return connect(address, self._security.client, self._security.token if token is None else token)

    def link(self) -> RemoteCoordinator:
        return RemoteCoordinator(self.channel())

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
