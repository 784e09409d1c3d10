"""Measures how soon the service answers a health check while it scores. Supervisors kill services that answer late."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedbbpt.bench.ptm.comparison import Progress
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.running_service import RunningService
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec
from fedbbpt.wire.channel import connect
from fedbbpt.wire.peers import PTM

PART = "health"
PAUSE_SECONDS = 0.02
"""Time between two health checks."""
CALLERS = 2
"""Number of callers that keep the service busy without a pause."""


def measure(
    service: RunningService, task: TaskSpec, workload: Workload, probes: int, progress: Progress
) -> tuple[Figure, ...]:
    """Times `probes` health checks while the service is idle, and as many while it scores."""
    workload = replace(workload, series=PART)
    scorer, ended = service.scorer(task, workload), threading.Event()

    def score(caller: int) -> int:
        jobs = 0
        while not ended.is_set():
            scorer(workload.latent(CALLERS * jobs + caller))()
            jobs += 1
        return jobs

    progress("health checks of the idle service")
    rest = _probe(service.address, probes)
    progress("health checks while scoring")
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(score, caller) for caller in range(CALLERS)]
        try:
            busy = _probe(service.address, probes)
        finally:
            ended.set()
    return (
        Figure(PART, "median at rest", (_percentile(rest, 50),), "ms"),
        Figure(PART, "median while scoring", (_percentile(busy, 50),), "ms"),
        Figure(PART, "99 % while scoring", (_percentile(busy, 99),), "ms", Bar(20, at_most=True)),
        Figure(PART, "longest while scoring", (max(busy),), "ms"),
        Figure(PART, "jobs meanwhile", (float(sum(call.result() for call in calls)),)),
    )


def _probe(address: str, count: int, pause: Callable[[float], None] = time.sleep) -> list[float]:
    """Returns the milliseconds of each of `count` health checks."""
    found = []
    with connect(address, peer=PTM) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        check = stub.Check
        check(health_pb2.HealthCheckRequest())  # establishes the connection
        for _ in range(count):
            pause(PAUSE_SECONDS)
            started = time.perf_counter()
            check(health_pb2.HealthCheckRequest())
            found.append(1000 * (time.perf_counter() - started))
    return found


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent))
