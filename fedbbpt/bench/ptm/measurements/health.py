"""How soon a service answers that it is well while it scores: with its model in the way, a supervisor would kill it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.service import Service
from fedbbpt.bench.ptm.turns import Note
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec
from fedbbpt.wire.channel import connect

PART = "health"
PAUSE_SECONDS = 0.02
CALLERS = 2
"""Whose jobs keep the service busy without a pause."""


def measure(service: Service, task: TaskSpec, workload: Workload, probes: int, note: Note) -> tuple[Figure, ...]:
    workload = replace(workload, series=PART)
    way, ended = service.way(task, workload), threading.Event()

    def score(caller: int) -> int:
        jobs = 0
        while not ended.is_set():
            way(workload.latent(CALLERS * jobs + caller))()
            jobs += 1
        return jobs

    note("health probes, at rest")
    rest = _probe(service.address, probes)
    note("health probes, under load")
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(score, caller) for caller in range(CALLERS)]
        try:
            busy = _probe(service.address, probes)
        finally:
            ended.set()
    return (
        Figure(PART, "median at rest", (_share(rest, 50),), "ms"),
        Figure(PART, "median while scoring", (_share(busy, 50),), "ms"),
        Figure(PART, "99 % while scoring", (_share(busy, 99),), "ms", Bar(20, at_most=True)),
        Figure(PART, "longest while scoring", (max(busy),), "ms"),
        Figure(PART, "jobs meanwhile", (float(sum(call.result() for call in calls)),)),
    )


def _probe(address: str, count: int, pause: Callable[[float], None] = time.sleep) -> list[float]:
    """Milliseconds of each call."""
    found = []
    with connect(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        check = stub.Check
        check(health_pb2.HealthCheckRequest())  # makes the connection
        for _ in range(count):
            pause(PAUSE_SECONDS)
            started = time.perf_counter()
            check(health_pb2.HealthCheckRequest())
            found.append(1000 * (time.perf_counter() - started))
    return found


def _share(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent))
