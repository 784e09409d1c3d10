"""Simulates runs of fed-sp with several seeds and keeps their prompts, without measuring all of a task's test examples.

Usage: python experiments/fed_sp_runs.py OUT JOB.toml... [--seeds 0,1,2]

Writes OUT/JOB-SEED/prompt.safetensors for each job and seed, and leaves out those that are there. The jobs have the
same model. A run prints what its rounds measured on dev examples.
"""

import argparse
from pathlib import Path

import torch

from fedbbpt.api.ptm import open_ptm
from fedbbpt.federation.prompt_file import write_prompt
from fedbbpt.federation.run_folder import PROMPT, prompt_card
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, read_job


def with_seed(job: Job, seed: int) -> Job:
    """Returns the job with another seed."""
    return job.model_copy(update={"run": job.run.model_copy(update={"seed": seed})})


parser = argparse.ArgumentParser()
parser.add_argument("out", type=Path)
parser.add_argument("jobs", type=Path, nargs="+")
parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
arguments = parser.parse_args()
model = read_job(arguments.jobs[0]).ptm
torch.set_num_threads(1)
with open_ptm(model.model, **model.options()) as ptm:
    card = ptm.describe()
    for seed in arguments.seeds:
        for path in arguments.jobs:
            folder = arguments.out / f"{path.stem}-{seed}"
            if (folder / PROMPT).exists():
                continue
            splits = prepare(with_seed(read_job(path), seed))
            result, reports = simulate(splits, ptm)
            for report in reports:
                print(f"{folder.name}: {report}", flush=True)
            examples, queries = len(splits.pooled()), sum(report.queries for report in reports)
            folder.mkdir(parents=True, exist_ok=True)
            kept = prompt_card(splits.job, card.revision, card.precision, examples, result, queries)
            write_prompt(folder / PROMPT, result.z, kept)
