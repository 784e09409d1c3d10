"""Measures the gain of a second replica on Ray on a machine with two cores, if each replica has a core of its own.

A kernel quota limits each replica's process to half a core, so that one core is left for the front end, Ray and the
callers. Usage, as root on Linux with cgroup v1: python experiments/replicas_on_half_cores.py
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from fedbbpt.bench.ptm.measurements.replicas import PART, pairs_per_second
from fedbbpt.bench.ptm.running_service import run_service
from fedbbpt.bench.ptm.workload import Workload, task_for

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD, QUOTA = 20_000, 10_000
"""Period and quota in microseconds, which give half a core."""
MODEL = "all-MiniLM-L6-v2"
WORKLOAD = replace(Workload(examples=8), series=PART)
ROUNDS, JOBS = 2, 2


def replicas() -> list[int]:
    """Returns the process ids of the replicas."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and b"ServeReplica:fedbbpt-ptm:Model" in (process / "cmdline").read_bytes():
            found.append(int(process.name))
    return found


def limit(processes: list[int]) -> None:
    """Limits each process to half a core."""
    for index, process in enumerate(processes):
        group = GROUPS / f"replica{index}"
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(QUOTA))
        (group / "cgroup.procs").write_text(str(process))


def rates(count: int) -> list[float]:
    """Returns the pairs per second of JOBS jobs with this many replicas, after a first job that warms up."""
    with tempfile.TemporaryDirectory() as folder, run_service(Path(folder), MODEL, 1, replicas=count) as started:
        limit(replicas())
        scorer = started.scorer(task_for(started.ptm.describe().family, MODEL), WORKLOAD)
        return [pairs_per_second(scorer, WORKLOAD, job) for job in range(JOBS + 1)][1:]


def main() -> None:
    """Measures one replica and two in turns, and prints the ratio of the medians."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(ROUNDS):
        for count in sorted(found, reverse=bool(turn % 2)):
            found[count] += rates(count)
    for count, each in found.items():
        print(f"{count}: {min(each):.1f} to {max(each):.1f} pairs/s")
    print(f"two over one: {median(found[2]) / median(found[1]):.2f}")


if __name__ == "__main__":
    main()
