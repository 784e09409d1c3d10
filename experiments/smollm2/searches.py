"""Measures searches with a language model on test examples, and prints a Markdown table.

Usage: python experiments/smollm2/searches.py DATA OUT JOB.toml... [--seeds 0,1,2] [--test 1000]

Each job's prompt is kept in OUT for each seed, so an interrupted experiment continues with the next run. Test examples
are scored after everything else.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fedbbpt.api.ptm import open_ptm
from fedbbpt.bench.methods.grid import sample_test_examples
from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.evaluation import evaluate
from fedbbpt.federation.prompt_file import read_prompt, write_prompt
from fedbbpt.federation.run_folder import prompt_card
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.settings import task_spec


def with_data(job: Job, source: str, seed: int) -> Job:
    """Returns the job with other data and another seed."""
    data, run = job.data.model_copy(update={"source": source}), job.run.model_copy(update={"seed": seed})
    return job.model_copy(update={"data": data, "run": run})


def search(splits: Splits, ptm: Ptm, path: Path) -> int:
    """Simulates a run, keeps its prompt in `path`, and returns the number of its queries."""
    if path.exists():
        return read_prompt(path)[1].queries
    model = ptm.describe()
    result, reports = simulate(splits, ptm, lambda status: print(path.stem, status.round, file=sys.stderr))
    queries, examples = sum(report.queries for report in reports), len(splits.pooled())
    write_prompt(path, result.z, prompt_card(splits.job, model.revision, model.precision, examples, result, queries))
    return queries


def row(name: str, queries: list[int], accuracies: list[float]) -> str:
    """Returns one row of the table: the means over the seeds, and the standard deviation of the accuracy."""
    spread = np.std(accuracies, ddof=1) if len(accuracies) > 1 else 0.0
    return f"| {name} | {np.mean(queries):,.0f} | {np.mean(accuracies):.1f} ± {spread:.1f} |"


parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("out", type=Path)
parser.add_argument("jobs", type=Path, nargs="+")
parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
parser.add_argument("--test", type=int, default=1000)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)
model = read_job(arguments.jobs[0]).ptm
with open_ptm(model.model, **model.options()) as ptm:
    runs: dict[Path, list[tuple[Splits, Path, int]]] = {job: [] for job in arguments.jobs}
    for seed in arguments.seeds:
        for job in arguments.jobs:
            splits = prepare(with_data(read_job(job), arguments.data, seed)).completed_by(ptm)
            path = arguments.out / f"{job.stem}-{seed}.safetensors"
            runs[job].append((splits, path, search(splits, ptm, path)))
    print("| search | queries | accuracy % |\n|---|--:|--:|")
    for job, found in runs.items():
        accuracies = []
        for splits, path, _ in found:
            scorer = PromptScorer(ptm, task_spec(splits.job), splits.job.space())
            test = sample_test_examples(splits.test, arguments.test)
            measured = evaluate(scorer, read_prompt(path)[0], test, len(splits.job.task.labels))
            accuracies.append(100 * (measured.accuracy or 0.0))
        print(row(job.stem, [queries for _, _, queries in found], accuracies))
