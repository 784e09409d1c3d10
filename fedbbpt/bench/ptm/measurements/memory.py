"""What a service holds of the machine's memory, job after job. Read from /proc, hence on Linux only."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.service import Service
from fedbbpt.bench.ptm.turns import Note
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec

PART = "memory"
NOTE_EVERY = 50


def measure(service: Service, task: TaskSpec, workload: Workload, jobs: int, note: Note) -> tuple[Figure, ...]:
    """Small jobs, since their number counts: 2 prompts x 4 texts, no prompt twice."""
    small = replace(workload, prompts=2, examples=4, series=PART)
    sizes = [resident_kib(service.pid)]
    way = service.way(task, small)
    for job in range(jobs):
        if job % NOTE_EVERY == 0:
            note(f"memory, job {job} of {jobs}")
        way(small.latent(job))()
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
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
