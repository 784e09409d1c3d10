"""Measures a coordinator with thousands of connected clients, of which each round asks some."""

import itertools
import json
import math
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedbbpt.bench.rounds import many_clients
from fedbbpt.bench.rounds.many_clients import Tally
from fedbbpt.bench.rounds.measuring import ANSWER_SECONDS, cpu_seconds, crew, make_certificate, told
from fedbbpt.bench.rounds.suite import coordinator
from fedbbpt.bench.rounds.zero_compute import job_keys
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.run_folder import METRICS
from fedbbpt.job.config import Job
from fedbbpt.limits import MAX_ROUNDS
from fedbbpt.server.remote import RemoteRun
from fedbbpt.wire.channel import connect

MEBIBYTE = 1 << 20
SPARE_DESCRIPTORS = 512
"""File descriptors of a process besides those of its connections."""
SAMPLE_SECONDS = 1.0
COURSE = 10
"""Parts of the time whose memory is told."""
FLAT = 1.05
"""The most that memory may grow from the second quarter of the time to the last."""
STARVED_DEVIATIONS = 5.0
"""A client has starved if it got so many standard deviations fewer tasks than a fair draw gives."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What was measured. Memory is the coordinator's resident set, in MiB."""

    clients: int
    size: int
    rounds: int
    seconds: float
    joins_per_second: float
    updates_per_second: float
    round_median: float
    """Milliseconds."""
    coordinator_cpu: float
    """Milliseconds of a round."""
    memory_joined: float
    """When all clients had joined."""
    memory: tuple[float, ...]
    """The medians of equal parts of the time in which rounds ran."""
    memory_early: float
    """The median of the second quarter of that time."""
    memory_late: float
    """The median of the last quarter."""
    memory_peak: float
    fewest_tasks: int
    """The fewest tasks that a client received."""
    most_tasks: int
    starved: int
    """Clients that received far fewer tasks than a fair draw gives, see STARVED_DEVIATIONS."""
    receipts: dict[str, int]
    """Receipts by kind."""
    lost: dict[str, int]
    """Calls that ended with an error, by its code and reason."""

    @property
    def tasks_expected(self) -> float:
        """The mean number of tasks of a client."""
        return self.rounds * self.size / self.clients

    @property
    def flat(self) -> bool:
        """Whether memory did not grow while rounds ran."""
        return self.memory_late <= FLAT * self.memory_early

    def record(self) -> dict[str, Any]:
        """Returns the measurement as JSON values."""
        return asdict(self) | {"tasks_expected": self.tasks_expected, "flat": self.flat}


def measure(
    folder: Path,
    clients: int,
    size: int,
    rounds: int,
    minutes: float,
    processes: int,
    method: str,
    dim: int,
    progress: Callable[[str], None],
) -> Scale:
    """Lets clients connect and join, and plays rounds.

    Args:
        folder: An empty folder on the disk that a run would use.
        clients: The number of clients.
        size: The number of clients in a round.
        rounds: The number of rounds; 0 plays as many as `minutes` allow.
        minutes: How long rounds are played at most, without `rounds`.
        processes: The number of processes that hold the clients.
        method: A name from `zero_compute.METHODS`.
        dim: The length of z.
        progress: Receives what is done next.

    Raises:
        InvalidInput: A process may not open as many connections.
        ChildFailed: A process has died.
    """
    _allow_descriptors(clients + SPARE_DESCRIPTORS)
    certificate, keys = make_certificate(folder), job_keys(method, dim, clients, rounds or MAX_ROUNDS)
    keys["cohort"] |= {"size": size, "quorum": 1.0}
    job, shares = Job.model_validate(keys), _shares(clients, processes)
    patience = ANSWER_SECONDS + clients / 10
    with coordinator(folder, certificate, keys) as (address, pid), crew() as helpers:
        progress(f"{clients} clients connect")
        ends = [helpers.start(many_clients.take_part, certificate, address, job, first, n) for first, n in shares]
        for end in ends:
            told(end, "a process with clients", patience)
        progress("they join")
        for end in ends:
            end.send("join")
        for end in ends:
            told(end, "a process with clients", patience)
        joined, used, begun = memory(pid), cpu_seconds(pid), time.monotonic()
        until = begun + (math.inf if rounds else 60 * minutes)
        samples: list[float] = []
        while True:
            samples.append(memory(pid))
            progress(f"rounds are played; the coordinator takes {samples[-1]:,.0f} MiB")
            if ends[0].poll(SAMPLE_SECONDS):  # the run has ended
                break
            if time.monotonic() >= until:
                with connect(address, certificate.client) as channel:
                    RemoteRun(channel).stop()
                until = math.inf
        tallies: list[Tally] = [told(end, "a process with clients", patience) for end in ends]
        seconds, used = time.monotonic() - begun, cpu_seconds(pid) - used
    reports = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    tasks = [number for tally in tallies for number in tally.tasks]
    spans = [tally.joined for tally in tallies]
    share = size / clients
    fair = len(reports) * share - STARVED_DEVIATIONS * math.sqrt(len(reports) * share * (1 - share))
    return Scale(
        clients=clients,
        size=size,
        rounds=len(reports),
        seconds=seconds,
        joins_per_second=clients / (max(end for _, end in spans) - min(start for start, _ in spans)),
        updates_per_second=sum(report["clients"] for report in reports) / seconds,
        round_median=1000 * statistics.median(report["seconds"] for report in reports),
        coordinator_cpu=1000 * used / len(reports),
        memory_joined=joined,
        memory=tuple(statistics.median(part) for part in _parts(samples, COURSE)),
        memory_early=statistics.median(_parts(samples, 4)[min(1, len(samples) - 1)]),
        memory_late=statistics.median(_parts(samples, 4)[-1]),
        memory_peak=max(joined, *samples),
        fewest_tasks=min(tasks),
        most_tasks=max(tasks),
        starved=sum(number < fair for number in tasks),
        receipts=dict(sum((tally.receipts for tally in tallies), Counter[str]())),
        lost=dict(sum((tally.lost for tally in tallies), Counter[str]())),
    )


def _parts(samples: Sequence[float], number: int) -> list[Sequence[float]]:
    """Returns the samples in parts of about equal length: so many, or one for each sample."""
    bounds = [len(samples) * i // number for i in range(number + 1)]
    return [samples[start:end] for start, end in itertools.pairwise(bounds) if end > start]


def memory(pid: int) -> float:
    """Returns the resident set of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def _shares(clients: int, processes: int) -> Sequence[tuple[int, int]]:
    """The first client and the number of clients of each process."""
    bounds = [clients * index // processes for index in range(processes + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(bounds) if last > first]


def _allow_descriptors(wanted: int) -> None:
    """Raises the limit of open files for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < wanted:
        what, fix = (
            f"a process may open {hard} files, and the coordinator needs {wanted}",
            "fewer --clients, or a higher",
        )
        raise InvalidInput(what, where="--clients", fix=f"{fix} `ulimit -Hn`")
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
