"""Measures the gain of a second replica of the model on Ray, which needs free cores."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.comparison import Progress, Scorer
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.running_service import RunningService, run_service
from fedbbpt.bench.ptm.workload import Workload, task_for

PART = "replicas"
SIZES = {"one replica": 1, "two replicas": 2}
CALLERS = 4
"""Callers with one job each at a time. With fewer, the replicas would wait for them."""


def measure(model: str, folder: Path, workload: Workload, repeats: int, progress: Progress) -> tuple[Figure, ...]:
    """Compares services with one replica and with two, one thread each; without Ray the figures have no values."""
    rates = _measure(model, folder, workload, repeats, progress) if find_spec("ray") else {name: [] for name in SIZES}
    one, two = rates.values()
    gains = tuple(b / a for a, b in zip(one, two, strict=True))
    figures = (Figure(PART, name, tuple(found), "pairs/s") for name, found in rates.items())
    return *figures, Figure(PART, " / ".join(reversed(SIZES)), gains, "x", Bar(1.7))


def _measure(
    model: str, folder: Path, workload: Workload, repeats: int, progress: Progress
) -> Mapping[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in SIZES}
    with ExitStack() as stack:
        scorers: dict[str, Scorer] = {}
        for name, replicas in SIZES.items():
            progress(f"starting {name} on Ray")
            service: RunningService = stack.enter_context(run_service(folder / name, model, 1, replicas=replicas))
            task = task_for(service.ptm.describe().family, model)
            scorers[name] = service.scorer(task, replace(workload, series=PART))
        for repeat in range(repeats + 1):
            for name in list(SIZES)[:: -1 if repeat % 2 else 1]:
                progress(f"{name}, {repeat} of {repeats}")
                rate = pairs_per_second(scorers[name], workload, repeat)
                if repeat:
                    rates[name].append(rate)
    return rates


def pairs_per_second(scorer: Scorer, workload: Workload, repeat: int) -> float:
    """Returns the pairs per second of all callers together, with one job each."""
    jobs = [scorer(replace(workload, series=PART).latent(CALLERS * repeat + caller)) for caller in range(CALLERS)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        for _ in callers.map(lambda job: job(), jobs):
            pass
    return CALLERS * workload.pairs / (time.perf_counter() - started)
