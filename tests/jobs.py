"""Runs a backend's jobs in an unusual order: micro-batches backwards, in as many threads as the backend suggests."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fedbbpt.interfaces import Backend, ScoringJob
from fedbbpt.types import Prompts, Scores, TaskSpec


def score(backend: Backend[Any], task: TaskSpec, prompts: Prompts, rows: Sequence[Any]) -> Scores:
    """Returns the scores `[P, B, K]` of all pairs."""
    wanted = np.ones((len(prompts), len(rows)), bool)
    return run(backend, backend.job(task, prompts, rows, wanted), (*wanted.shape, len(task.classes)))


def run(backend: Backend[Any], job: ScoringJob, shape: tuple[int, int, int]) -> Scores:
    """Returns the scores `[P, B, K]` of a job; those of pairs that are not wanted are NaN."""
    scores = np.full(shape, np.nan, np.float32)
    with ThreadPoolExecutor(backend.threads) as threads:
        for batch, part in zip(job.batches[::-1], threads.map(job.run, job.batches[::-1]), strict=True):
            scores[batch.prompts, batch.rows] = part if part.ndim == 2 else part[:, 0]
    return scores
