"""Measures how fast a client downloads an auxiliary model, next to a bare gRPC stream of as many bytes.

Two processes have both: one serves the coordinator and the bare stream, over TLS and with messages of one size, and the
other one reads them. The two take turns, so that what else the machine does slows both down.
"""

import asyncio
import hashlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from fedbbpt.bench.rounds.measuring import Certificate, cpu_seconds, crew, make_certificate, told
from fedbbpt.bench.rounds.zero_compute import job_keys
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.codecs import LINKS
from fedbbpt.federation import assemble
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.limits import AUXILIARY_CHUNK_BYTES
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import serve
from fedbbpt.types import Auxiliary, Hello
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tls import ServerCertificates
from fedbbpt.wire.traffic import TrafficMeter

MEBIBYTE = 1 << 20
METHOD = "/bare/Read"
RUN_ID = "download"
SLOWEST_BYTES = 5e6
"""A second. A measurement that is slower than this has failed."""


@dataclass(frozen=True, slots=True)
class Downloads:
    """Bytes and seconds of each download; the n-th ones of both kinds ran one after the other."""

    size: int
    bare: list[float]
    """Seconds of the bare streams."""
    own: list[float]
    """Seconds of the downloads to a file, with checksums and digest."""
    bare_cpu: list[float]
    """Seconds of CPU of both processes, of each bare stream."""
    own_cpu: list[float]

    @property
    def share(self) -> float:
        """The rate of the downloads as a share of that of the bare streams: the median over the pairs."""
        return _ratio(self.bare, self.own)

    @property
    def cpu_share(self) -> float:
        """The CPU time of the bare streams as a share of that of the downloads, which other programs change less."""
        return _ratio(self.bare_cpu, self.own_cpu)

    def record(self) -> dict[str, Any]:
        """Returns the measurement as JSON values."""
        return asdict(self) | {"share": self.share, "cpu_share": self.cpu_share}


def _ratio(bare: list[float], own: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(bare, own, strict=True))


def measure(folder: Path, mebibytes: int, repeats: int, progress: Callable[[str], None]) -> Downloads:
    """Downloads a file of random bytes several times.

    Args:
        folder: An empty folder on the disk that a client would use.
        mebibytes: The size of the file.
        repeats: The number of downloads of each kind.
        progress: Receives what is done next.

    Raises:
        ChildFailed: A process has died.
    """
    progress("a file is written")
    path, certificate, size = folder / "model", make_certificate(folder), mebibytes * MEBIBYTE
    announced = Auxiliary(size, _write(path, mebibytes))
    patience = 60 + size / SLOWEST_BYTES
    with crew() as helpers:
        server = helpers.start(_serve, certificate, path, announced)
        pid, ports = told(server, "the server", patience)
        reader = helpers.start(_read, certificate, ports, announced, folder / "downloads", repeats)
        found = Downloads(size, [], [], [], [])
        kinds = [("a bare stream", found.bare, found.bare_cpu), ("a download", found.own, found.own_cpu)]
        for number in range(repeats):
            for name, seconds, cpu in kinds:
                progress(f"{name}, {number + 1} of {repeats}")
                before = cpu_seconds(pid)
                reader.send("go")
                took, read_cpu = told(reader, name, patience)
                seconds.append(took)
                cpu.append(cpu_seconds(pid) - before + read_cpu)
    return found


def _write(path: Path, mebibytes: int) -> str:
    """Writes random bytes to a file and returns their SHA-256."""
    block, digest = np.random.default_rng(0).bytes(MEBIBYTE), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def _serve(connection: Connection, certificate: Certificate, path: Path, announced: Auxiliary) -> None:
    data = bytes(AUXILIARY_CHUNK_BYTES)

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(-(-announced.size_bytes // len(data))):
            yield data

    async def run() -> None:
        job = Job.model_validate(job_keys("fed-cma", 2, clients=1, rounds=2))
        settings = replace(run_settings(job, RUN_ID), auxiliary=announced)
        live = LiveRun(assemble.coordinator(job, settings, MemoryStore()), TrafficMeter(), auxiliary=path)
        coordinator = await serve(Runs([live]), tls=certificate.server)
        bare = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers: Any = {"Read": grpc.unary_stream_rpc_method_handler(stream)}
        bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", handlers),))
        port = bare.add_secure_port("127.0.0.1:0", ServerCertificates(certificate.server).credentials())
        await bare.start()
        connection.send((os.getpid(), (port, coordinator.port)))
        await coordinator.ended

    asyncio.run(run())


def _read(
    connection: Connection,
    certificate: Certificate,
    ports: tuple[int, int],
    announced: Auxiliary,
    folder: Path,
    repeats: int,
) -> None:
    bare, own = (connect(f"localhost:{port}", certificate.client) for port in ports)
    with bare, own:
        link = RemoteCoordinator(own)
        link.join(Hello("reader", "key", 1, LINKS))

        def read_all() -> None:
            read: Any = bare.unary_stream(METHOD)
            for _ in read(b""):
                pass

        for _ in range(repeats):
            for work in (read_all, lambda: link.fetch_auxiliary(announced, folder).unlink()):
                connection.recv()
                begun, used = time.perf_counter(), time.process_time()
                work()
                connection.send((time.perf_counter() - begun, time.process_time() - used))
