"""What a second replica of the model gains, behind one front on Ray, where cores are free for it."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.service import Service, service
from fedbbpt.bench.ptm.turns import Note, Way
from fedbbpt.bench.ptm.workload import Workload, task_of

PART = "replicas"
SIZES = {"one replica": 1, "two replicas": 2}
CALLERS = 4
"""Each with a job at a time: with fewer, replicas would wait for them."""


def measure(model: str, folder: Path, workload: Workload, repeats: int, note: Note) -> tuple[Figure, ...]:
    rates = _measure(model, folder, workload, repeats, note) if find_spec("ray") else {name: [] for name in SIZES}
    one, two = rates.values()
    gains = tuple(b / a for a, b in zip(one, two, strict=True))
    figures = (Figure(PART, name, tuple(found), "pairs/s") for name, found in rates.items())
    return *figures, Figure(PART, " / ".join(reversed(SIZES)), gains, "x", Bar(1.7))


def _measure(model: str, folder: Path, workload: Workload, repeats: int, note: Note) -> Mapping[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in SIZES}
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, replicas in SIZES.items():
            note(f"starting {name} on Ray")
            started: Service = stack.enter_context(service(folder / name, model, 1, replicas=replicas))
            task = task_of(started.ptm.describe().family, model)
            ways[name] = started.way(task, replace(workload, series=PART))
        for repeat in range(repeats + 1):
            for name in list(SIZES)[:: -1 if repeat % 2 else 1]:
                note(f"{name}, {repeat} of {repeats}")
                rate = pairs_per_second(ways[name], workload, repeat)
                if repeat:
                    rates[name].append(rate)
    return rates


def pairs_per_second(way: Way, workload: Workload, repeat: int) -> float:
    """Of all callers together."""
    jobs = [way(replace(workload, series=PART).latent(CALLERS * repeat + caller)) for caller in range(CALLERS)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        for _ in callers.map(lambda job: job(), jobs):
            pass
    return CALLERS * workload.pairs / (time.perf_counter() - started)
