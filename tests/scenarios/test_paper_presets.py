"""The papers' jobs run on tiny random checkpoints of the papers' architectures.

The tests change only the model's name, the data and the numbers of clients, shots, rounds and, for images, steps. With
the papers' weights, the jobs run unchanged.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, read_job
from fedbbpt.ptm.models.loading import load
from tests.checkpoints import WORDS, save_checkpoint
from tests.reports import dev_losses
from tests.tenants import local_ptm

PAPERS = Path(__file__).parents[2] / "experiments" / "papers"
CLIENTS = 2
MAX_TOKENS = 200

BRIEF = ("fed-bpt-llama-2-7b-sst2", "fedone-roberta-large-sst2")
"""The jobs that `make test` runs: one for each architecture for text."""
ARCHITECTURES = {
    "FacebookAI/roberta-large": "roberta-mlm",
    "meta-llama/Llama-2-7b-hf": "llama",
    "openai/clip-vit-base-patch16": "clip-224",
}


def presets() -> list[Any]:
    """Returns all jobs except those of fed-sp, which need an auxiliary model and have a test of their own."""
    papers = sorted(path for path in PAPERS.glob("*.toml") if read_job(path).method.name != "fed-sp")
    return [pytest.param(path, id=path.stem, marks=() if path.stem in BRIEF else pytest.mark.slow) for path in papers]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Job], Path]:
    """Returns a tiny checkpoint of the job's architecture, whose vocabulary has the class words as single tokens."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("papers")
    words = f"{WORDS} terrible World Sports Business Tech"

    def make(job: Job) -> Path:
        name = ARCHITECTURES[job.ptm.model]
        if not (folder / name).exists():
            save_checkpoint(name, folder / name, words=words, max_tokens=MAX_TOKENS)
        return folder / name

    return make


def write_data(folder: Path, job: Job) -> Path:
    """Writes train, dev and test examples of the form that the job reads: texts or images."""
    return write_images(folder, job) if job.task.prompt.kind == "image" else write_texts(folder, job)


def write_images(folder: Path, job: Job) -> Path:
    assert job.task.prompt.kind == "image"
    draw, classes = np.random.default_rng(2), np.arange(len(job.task.labels)).repeat(4)
    for name in ("train", "dev", "test"):
        np.savez(
            folder / f"{name}.npz", x=draw.integers(0, 256, (len(classes), *job.task.prompt.image), np.uint8), y=classes
        )
    return folder


def write_texts(folder: Path, job: Job) -> Path:
    """Writes train, dev and test texts in the columns that the job reads. Their phrases recur, as n-grams need."""
    draw, phrases = np.random.default_rng(2), ["the film was", "a great story", "not so good", "very long and dull"]
    for name in ("train", "dev", "test"):
        rows = [
            {job.data.text_column: " ".join(draw.choice(phrases, 3)), job.data.label_column: label}
            for label in job.task.labels
            for _ in range(30)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made_small(job: Job, model: Path, source: Path) -> Job:
    ptm = job.ptm.model_copy(update={"model": str(model)})
    shots = {"shots_per_class": 4, "dev_shots_per_class": 4, "server_share": job.data.server_share and 0.25}
    data = job.data.model_copy(update={"source": str(source), **shots})
    cohort = job.cohort.model_copy(update={"clients": CLIENTS})
    run = job.run.model_copy(update={"rounds": 1})
    if job.task.prompt.kind == "image":
        data = data.model_copy(update={"shots_per_class": 1, "dev_shots_per_class": 1})
        job = job.model_copy(update={"method": job.method.model_copy(update={"local_steps": 1})})
    changed = {"run": run, "ptm": ptm, "data": data, "cohort": cohort}
    return Job.model_validate(job.model_copy(update=changed).model_dump())


@pytest.mark.parametrize("preset", presets())
def test_a_papers_job_runs(preset: Path, model: Callable[[Job], Path], tmp_path: Path) -> None:
    job = read_job(preset)
    splits = prepare(made_small(job, model(job), write_data(tmp_path, job)))
    ptm = local_ptm(load(splits.job.ptm.model, threads=1), time.monotonic)
    result, reports = simulate(splits, ptm, lambda status: None)
    assert np.isfinite(result.z).all() and np.isfinite(dev_losses(reports)).all()
    assert sum(report.queries for report in reports) == ptm.usage().queries > 0
