"""Measures rounds: a bare barrier and this project's coordinator take turns, for each number of clients and method."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import tomlkit

from fedbbpt.bench.rounds import barrier, lean_clients, own_clients
from fedbbpt.bench.rounds.measuring import (
    WARM_ROUNDS,
    Certificate,
    Crew,
    Progress,
    cpu_seconds,
    crew,
    make_certificate,
    told,
)
from fedbbpt.bench.rounds.zero_compute import job_keys
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.job.config import Job
from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import Report
from fedbbpt.wire.channel import connect

MOST_OWN_CLIENTS = 16
"""Above this number the clients are lean: more of the project's own would be measured instead of the coordinator."""
SHORTEST_ROUNDS, LONGEST_ROUNDS, CLIENT_ROUNDS = 12, 200, 3000
"""The fewest and the most rounds of a measurement, and the number of rounds times clients between them."""
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of one method with one number of clients. Times are milliseconds, bytes include all framing."""

    method: str
    clients: int
    kind: str
    """`own`: clients of this project, each in a process of its own; `lean`: the least that the protocol permits."""
    rounds: int
    """The number of rounds that were measured."""
    barrier: float
    """The median of the bare barrier's rounds, before and after."""
    median: float
    p99: float
    coordinator_cpu: float
    """The coordinator's CPU time for a round."""
    client_cpu: float
    """A client's CPU time for a round, the median over the clients."""
    bytes_up: float | None
    """Bytes from a client in a round; None if the operating system does not count them."""
    bytes_down: float | None
    aggregation: str = "plain"
    """`plain`, or `secure`: the coordinator learns the sum alone."""

    @property
    def ratio(self) -> float:
        """The median round in bare barriers."""
        return self.median / self.barrier

    @property
    def bar(self) -> float:
        """The ratio that should not be exceeded."""
        return 8.0 if self.clients <= MOST_OWN_CLIENTS else 6.0

    def record(self) -> dict[str, Any]:
        """Returns the measurement as JSON values."""
        return asdict(self) | {"ratio": self.ratio, "bar": self.bar, "met": self.ratio <= self.bar}

    def cells(self) -> tuple[str, ...]:
        """Returns the measurement as cells of a table with the columns COLUMNS."""
        bytes_up, bytes_down = (
            "not counted" if each is None else f"{each:,.0f}" for each in (self.bytes_up, self.bytes_down)
        )
        return (
            f"{self.method}, {self.clients} {self.kind}" + (", secure" if self.aggregation == "secure" else ""),
            f"{self.barrier:,.2f}",
            f"{self.median:,.1f}",
            f"{self.p99:,.1f}",
            f"{self.ratio:.1f} (≤ {self.bar:g})" if self.aggregation == "plain" else f"{self.ratio:.1f}",
            f"{self.coordinator_cpu:,.1f}",
            f"{self.client_cpu:.2f}",
            bytes_up,
            bytes_down,
        )


COLUMNS = (
    "clients",
    "barrier, ms",
    "round, ms",
    "p99, ms",
    "ratio (bar)",
    "coordinator CPU, ms",
    "client CPU, ms",
    "bytes up",
    "bytes down",
)
"""Headers of a table of measurements. CPU and bytes are those of a round, and those of clients are of one client."""


def measure(
    folder: Path,
    methods: Sequence[str],
    clients: Sequence[int],
    dim: int,
    watchers: int,
    progress: Progress,
    aggregation: str = "plain",
) -> Iterator[Rounds]:
    """Yields the measurements. `folder` holds databases and logs. Raises InvalidInput, ChildFailed.

    Args:
        folder: An empty folder on the disk that a run would use.
        methods: Names from `zero_compute.METHODS`.
        clients: Numbers of clients.
        dim: The length of z.
        watchers: How many operators watch each run.
        progress: Receives what is measured next.
        aggregation: `plain`, or `secure`, which measures each run without and with secure aggregation; with the fewest
            clients that it allows in place of fewer.
    """
    certificate = make_certificate(folder)
    for count in clients if aggregation == "plain" else sorted({max(count, LEAST_CLIENTS) for count in clients}):
        rounds = min(LONGEST_ROUNDS, max(SHORTEST_ROUNDS, CLIENT_ROUNDS // count))
        after: list[float] | None = None
        for method, way in product(methods, ("plain", "secure")[: 1 + (aggregation == "secure")]):
            progress(f"{method} with {count} clients, {way}")
            place = Path(tempfile.mkdtemp(prefix=f"{method}-{count}-{way}-", dir=folder))
            with crew() as helpers:
                # The barrier after one run is the barrier before the next one.
                before = after or barrier.measure(helpers, certificate, count, rounds)
                keys = job_keys(method, dim, count, rounds + WARM_ROUNDS, way)
                found = _measure_run(place, helpers, certificate, keys, count, watchers)
                after = barrier.measure(helpers, certificate, count, rounds)
            yield replace(_rounds(method, count, before + after, found), aggregation=way)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one run of the coordinator told."""

    reports: Sequence[Report]
    """The reports of the rounds that count."""
    coordinator_cpu: float
    client_cpu: Sequence[float]


def _rounds(method: str, clients: int, bare: Sequence[float], found: _Found) -> Rounds:
    seconds = sorted(report.seconds for report in found.reports)
    ups = [report.bytes_up for report in found.reports if report.bytes_up is not None]
    downs = [report.bytes_down for report in found.reports if report.bytes_down is not None]
    return Rounds(
        method=method,
        clients=clients,
        kind=_kind(clients),
        rounds=len(seconds),
        barrier=1000 * statistics.median(bare),
        median=1000 * statistics.median(seconds),
        p99=1000 * seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))],
        coordinator_cpu=1000 * found.coordinator_cpu,
        client_cpu=1000 * statistics.median(found.client_cpu),
        bytes_up=sum(ups) / len(ups) / clients if ups else None,
        bytes_down=sum(downs) / len(downs) / clients if downs else None,
    )


def _kind(clients: int) -> str:
    return "own" if clients <= MOST_OWN_CLIENTS else "lean"


def _measure_run(
    place: Path, helpers: Crew, certificate: Certificate, keys: dict[str, Any], clients: int, watchers: int
) -> _Found:
    job = Job.model_validate(keys)
    with coordinator(place, certificate, keys) as (address, pid):
        if _kind(clients) == "own":
            ends = [
                helpers.start(own_clients.take_part, certificate, address, job, index, place)
                for index in range(clients)
            ]
        else:
            ends = [helpers.start(lean_clients.take_part, certificate, address, job, clients)]
        eyes = [helpers.start(watch, certificate, address) for _ in range(watchers)]
        for end in ends:
            told(end, "a client")
        before = cpu_seconds(pid)
        wait(ends)
        used = cpu_seconds(pid) - before
        results = [told(end, "a client") for end in ends]
        for eye in eyes:
            told(eye, "a watcher")
        with connect(address, certificate.client) as channel:
            (_, reports), *_ = RemoteRun(channel).watch()
    helpers.close()
    counted = results[0][1]
    return _Found(reports[WARM_ROUNDS:], used / counted, [seconds / done for seconds, done in results])


def watch(connection: Any, certificate: Certificate, address: str) -> None:
    """Watches the run to its end, as `fedbbpt status --watch` does."""
    with connect(address, certificate.client) as channel:
        connection.send(sum(1 for _ in RemoteRun(channel).watch()))
    time.sleep(60.0)


@contextmanager
def coordinator(place: Path, certificate: Certificate, keys: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Runs `fedbbpt coordinator serve` for the block; yields its address and its process id."""
    file, listening = place / "job.toml", place / "address"
    file.write_text(tomlkit.dumps(keys))
    words = ["coordinator", "serve", str(file), "--store", str(place / "run.db"), "--port", "0"]
    if Job.model_validate(keys).definition().white_box:
        model = place / "auxiliary"
        model.write_bytes(b"no client trains it")
        words += ["--auxiliary", str(model)]
    words += ["--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.key)]
    with ProcessGroup(place) as group:
        group.start("coordinator", [*words, "--address-file", str(listening)])
        yield group.address("coordinator", listening, START_SECONDS), group.pid("coordinator")
