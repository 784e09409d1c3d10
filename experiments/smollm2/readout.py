"""Measures no tuning, offsets and a federated readout of a language model, and prints a Markdown table.

Usage: python experiments/smollm2/readout.py JOB.toml DATA OUT [--shots 16,64] [--seeds 0,1,2] [--test 500]

Scores are kept in OUT, so an interrupted run continues. Test examples are scored after everything else.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedbbpt.api.ptm import open_ptm
from fedbbpt.bench.kept_scores import KeptScores
from fedbbpt.bench.methods.grid import sample_test_examples
from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.settings import task_spec
from fedbbpt.methods.fed_readout import FedReadoutConfig
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.tasks.criterion import accuracy
from fedbbpt.tasks.offsets import choose_offsets
from fedbbpt.types import LabelledExamples, Scores
from fedbbpt.types.examples import concatenate

Row = dict[str, float]


def numbers(text: str) -> list[int]:
    """Returns the numbers in a list with commas."""
    return [int(word) for word in text.split(",")]


def with_shots(job: Job, source: str, shots: int, seed: int) -> Job:
    """Returns the job with other data, shots and seed."""
    data = job.data.model_copy(update={"source": source, "shots_per_class": shots, "dev_shots_per_class": shots})
    return job.model_copy(update={"data": data, "run": job.run.model_copy(update={"seed": seed})})


def measure(splits: Splits, test: LabelledExamples, ptm: Ptm) -> Callable[[], Row]:
    """Fits offsets and a readout, and returns the function that measures them on test examples."""
    job, train = splits.job, splits.pooled()
    plain, space = PromptScorer(ptm, task_spec(job), NoPrompt()), job.space()
    classes = len(job.task.labels)

    def scores(data: LabelledExamples) -> Scores:
        found: Scores = plain.scores(data, NoPrompt.Z)[:, :, :classes]
        return found

    labelled = (
        concatenate([train, *splits.dev]) if isinstance(job.method, FedReadoutConfig) and job.method.refit else train
    )
    offsets = choose_offsets(scores(labelled)[0], labelled.labels).astype(np.float32)
    result, _ = simulate(splits, ptm)

    def on_test() -> Row:
        own = scores(test)
        read = PromptScorer(ptm, task_spec(job), space).scores(test, result.z[None])
        rows = {"zero-shot": own, "offsets": own + offsets, "readout": read}
        return {name: 100 * float(accuracy(found, test.labels)[0]) for name, found in rows.items()}

    return on_test


parser = argparse.ArgumentParser()
parser.add_argument("job", type=Path)
parser.add_argument("data")
parser.add_argument("out", type=Path)
parser.add_argument("--shots", type=numbers, default=[16, 64])
parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
parser.add_argument("--test", type=int, default=500)
arguments = parser.parse_args()
job = read_job(arguments.job)
with open_ptm(job.ptm.model, **job.ptm.options()) as inner:
    ptm = KeptScores(inner, {}, arguments.out / f"{job.run.name}.scores")
    measured: list[tuple[int, list[Callable[[], Row]]]] = []
    for shots in arguments.shots:
        found = []
        for seed in arguments.seeds:
            splits = prepare(with_shots(job, arguments.data, shots, seed)).completed_by(ptm)
            found.append(measure(splits, sample_test_examples(splits.test, arguments.test), ptm))
            print(f"{shots} per class, seed {seed}: {len(splits.pooled())} training examples", file=sys.stderr)
        measured.append((shots, found))
    print("| per class | zero-shot % | offsets % | readout % |\n|--:|--:|--:|--:|")
    for shots, found in measured:
        rows = [on_test() for on_test in found]
        cells = [
            f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"
            for values in ([row[name] for row in rows] for name in rows[0])
        ]
        print(f"| {shots} | {' | '.join(cells)} |")
