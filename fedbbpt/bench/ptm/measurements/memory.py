"""Measures the service's resident memory, job after job. It reads /proc, so it needs Linux."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedbbpt.bench.ptm.comparison import Progress
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.running_service import RunningService
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec

PART = "memory"
PROGRESS_EVERY = 50
"""Number of jobs between two messages to the user."""


def measure(
    service: RunningService, task: TaskSpec, workload: Workload, jobs: int, progress: Progress
) -> tuple[Figure, ...]:
    """Scores many small jobs, 2 prompts x 4 texts each, since a leak grows with the number of jobs."""
    small = replace(workload, prompts=2, examples=4, series=PART)
    sizes = [resident_kib(service.pid)]
    scorer = service.scorer(task, small)
    for job in range(jobs):
        if job % PROGRESS_EVERY == 0:
            progress(f"memory, job {job} of {jobs}")
        scorer(small.latent(job))()
        sizes.append(resident_kib(service.pid))
    second = np.array(sizes[jobs // 2 :])
    slope = np.polynomial.polynomial.polyfit(np.arange(len(second)), second, 1)[1]
    return (
        Figure(PART, "resident at the beginning", (sizes[0] / 1024,), "MiB"),
        Figure(PART, "resident after the first half of the jobs", (float(second[0]) / 1024,), "MiB"),
        Figure(PART, "resident after the last job", (sizes[-1] / 1024,), "MiB"),
        Figure(PART, "growth over the second half", (100 * (sizes[-1] / float(second[0]) - 1),), "%", Bar(1, True)),
        Figure(PART, "slope of the second half", (float(slope),), "KiB a job"),
        Figure(PART, "jobs", (float(jobs),)),
    )


def resident_kib(pid: int) -> int:
    """Returns a process's resident memory in KiB. Raises ProcessLookupError if Linux does not tell it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
