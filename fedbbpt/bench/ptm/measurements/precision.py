"""Measures what other precisions and runtimes gain over the service's own, and how much their scores differ."""

from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.comparison import Comparison, Progress, compare
from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.running_service import RunningService, run_service
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.errors import ChildFailed
from fedbbpt.types import Precision, Runtime, TaskSpec

PART = "precision"
ALL = (
    (Runtime.TORCH, Precision.FLOAT32),
    (Runtime.TORCH, Precision.BFLOAT16),
    (Runtime.ONNXRUNTIME, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.BFLOAT16),
)


def measure(
    service: RunningService,
    model: str,
    folder: Path,
    threads: int,
    task: TaskSpec,
    workload: Workload,
    repeats: int,
    progress: Progress,
) -> tuple[Figure, ...]:
    """Compares `service` with a service of each other precision and runtime, one after the other."""
    figures: list[Figure] = []
    base = f"{service.runtime} {service.precision}"
    for runtime, precision in ALL:
        name = f"{runtime} {precision}"
        if name == base:
            continue
        own = replace(workload, series=name)
        found: Comparison | None = None
        if runtime is Runtime.TORCH or find_spec(runtime.value) is not None:
            progress(f"starting a service with {name}")
            # The machine may lack the precision, or the runtime may not support the model.
            with suppress(ChildFailed), run_service(folder / name, model, threads, precision, runtime) as other:
                scorers = {base: service.scorer(task, own), name: other.scorer(task, own)}
                found = compare(scorers, own, repeats, progress)
        figures += [
            Figure(PART, f"{name} / {base}", found.ratios(name, base) if found else (), "x"),
            Figure(PART, f"{name}: scores apart", (found.largest_difference(name, base),) if found else ()),
        ]
    return tuple(figures)
