"""Compares synchronous with asynchronous rounds in virtual time: ten clients, two of which take ten times as long.

For each mode it prints the virtual time at which a round began with a prompt whose dev loss, over the dev examples of
all clients, was low enough, for each seed. The model is the closed-form one.

Usage: python experiments/async_rounds.py METHOD SEEDS SECONDS...
"""

import statistics
import sys
from collections.abc import Iterator, Sequence

from fedbbpt.api.ptm import open_ptm
from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.evaluation import evaluate
from fedbbpt.federation.simulation import Simulation
from fedbbpt.federation.splits import prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import parse_job
from fedbbpt.job.settings import task_spec
from fedbbpt.types import Task

CLIENTS, SLOW = 10, 2
METHODS = {"fedavg-bbt": "sigma = 0.5", "fed-bbpt": ""}
MODES = {
    "sync": "",
    "sync, over_sample": "size = 8\nover_sample = 1.25",
    "async, buffer = 8": 'mode = "async"\nbuffer = 8\nmax_staleness = 16',
    "async, buffer = 4": 'mode = "async"\nbuffer = 4\nmax_staleness = 32',
}
JOB = """
[run]
seed = {seed}
rounds = 1000
[ptm]
model = "fake"
[data]
partition = "iid"
[cohort]
clients = {clients}
{cohort}
[method]
name = "{method}"
{options}
"""


def pace(task: Task) -> float:
    """Returns the virtual seconds of a task: ten for the last two clients, and one for the others."""
    return 10.0 if int(task.id.client_id.removeprefix("client-")) >= CLIENTS - SLOW else 1.0


def losses(ptm: Ptm, method: str, cohort: str, seed: int, seconds: float) -> Iterator[tuple[float, float]]:
    """Yields the virtual time at which each round began, and the dev loss of its prompt."""
    text = JOB.format(seed=seed, clients=CLIENTS, cohort=cohort, method=method, options=METHODS[method])
    splits = prepare(parse_job(text))
    job, now = splits.job, 0.0
    scorer, simulation = PromptScorer(ptm, task_spec(job), job.space()), Simulation(splits, ptm, pace=pace)
    for closed in simulation.rounds():
        measured = [(evaluate(scorer, closed.z, dev, len(job.task.labels)).loss or 0.0, len(dev)) for dev in splits.dev]
        yield now, sum(loss * count for loss, count in measured) / sum(count for _, count in measured)
        now += closed.report.seconds
        if now > seconds:
            return


def main(method: str, seeds: int, marks: Sequence[float]) -> None:
    """Prints how long each mode takes to the lowest loss that synchronous rounds had reached at each mark."""
    with open_ptm("fake") as ptm:
        found = {
            mode: [list(losses(ptm, method, MODES[mode], seed, marks[-1])) for seed in range(seeds)] for mode in MODES
        }
    for mark in marks:
        targets = [min(loss for at, loss in course if at <= mark) for course in found["sync"]]
        print(f"{method}: sync after {mark:g} s, median loss {statistics.median(targets):.4f}")
        for mode, courses in found.items():
            times = [
                next((f"{at:g}" for at, loss in course if loss <= target), "-")
                for course, target in zip(courses, targets, strict=True)
            ]
            print(f"  {mode:20} {' and '.join(times)} s")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [float(mark) for mark in sys.argv[3:]])
