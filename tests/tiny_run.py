"""A tiny federation: its data, its jobs, and the course that its run takes."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Report, Result
from tests.tenants import local_ptm

CLIENTS = 3
ROUNDS = 4
DEADLINE_SECONDS = 60.0


def write_data(folder: Path, each: int = 15) -> Path:
    """Writes `each` texts of two classes, the same ones as train, dev and test examples, so that learning shows."""
    draw = np.random.default_rng(5)
    words = {"number": "how many much count total years ten", "place": "where city country near river map town"}
    shared = "is the of in a it there"
    rows = [
        {"text": " ".join(draw.choice(f"{own} {shared}".split(), 5)), "label": label}
        for label, own in words.items()
        for _ in range(each)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job(
    data: Path, *, rounds: int = ROUNDS, method: str = "fed-cma", codec: str = "float32", clients: int = CLIENTS
) -> Job:
    """Returns a job with a quorum of two in three clients, and a model that answers in microseconds."""
    search: dict[str, dict[str, object]] = {
        "fed-cma": {"step": "ranks", "population": 6, "sigma": 0.5},
        "fed-bpt": {"local_iterations": 2, "sigma": 0.5},
        "fed-bbpt": {"local_steps": 2, "estimates": 2},
        "fedavg-bbt": {"local_population": 6, "local_iterations": 2, "sigma": 0.5},
        "fed-readout": {},
    }
    prompt = {"kind": "none"} if method == "fed-readout" else {"tokens": 4, "dim": 6}
    return Job.model_validate(
        {
            "run": {"name": "tiny", "rounds": rounds},
            "ptm": {"model": "fake"},
            "task": {"prompt": prompt},
            "data": {"source": str(data), "shots_per_class": 0, "dev_shots_per_class": 0, "partition": "iid"},
            "cohort": {"clients": clients, "quorum": 0.6, "deadline_seconds": DEADLINE_SECONDS},
            "method": {"name": method, **search[method]},
            "codec": {"uplink": codec},
        }
    )


def secure(job: Job) -> Job:
    """Returns the same job with secure aggregation."""
    return Job.model_validate(job.model_dump() | {"privacy": {"aggregation": "secure"}})


def job_of_prefixes(job: Job, model: Path) -> Job:
    """Returns the same job with the method fed-sp on a tiny Llama, whose owner has examples, too."""
    sections = job.model_dump()
    sections["ptm"] |= {"model": str(model), "threads": 1}
    sections["task"] |= {"template": "{text} is a {mask}", "labels": ["number", "place"]}
    sections["task"] |= {"classes": ["number", "place in paris"]}
    sections["task"]["prompt"] = {"kind": "deep", "tokens": 3, "layers": 2, "heads": 2, "width": 8}
    sections["data"] |= {"server_share": 0.3}
    sections["method"] = {"name": "fed-sp", "distill_steps": 2, "local_steps": 2, "batch_size": 4}
    return Job.model_validate(sections)


def job_of_words(job: Job, *, size: int = 0) -> Job:
    """Returns the same job in search of three words from the server's examples, with `size` clients in a round."""
    sections = job.model_dump()
    sections["task"]["prompt"] = {"kind": "text", "words": 3, "vocabulary": 12}
    sections["data"] |= {"server_share": 0.4}
    sections["cohort"] |= {"size": size}
    sections["method"] = {"name": "fed-bbpt", "generator": "categorical", "local_steps": 2, "learning_rate": 0.05}
    return Job.model_validate(sections)


@dataclass(frozen=True)
class Course:
    """Everything that a job determines: the bits of the prompt, and each round's report without time and bytes."""

    z: bytes
    reports: tuple[Report, ...]

    @classmethod
    def of(cls, result: Result, reports: Sequence[Report]) -> "Course":
        """Returns the course of a run that ended with this result."""
        timeless: dict[str, Any] = {"seconds": 0.0, "bytes_up": None, "bytes_down": None}
        return cls(result.z.tobytes(), tuple(replace(report, **timeless) for report in reports))

    @property
    def clients(self) -> list[int]:
        """The number of updates that were counted in each round."""
        return [report.clients for report in self.reports]


def fake_ptm() -> LocalPtm:
    """Returns a PTM that answers in closed form."""
    return local_ptm(Fake(), time.monotonic)


def undisturbed(splits: Splits) -> Course:
    """Returns the course of the run in a simulation, where nothing fails."""
    return Course.of(*simulate(splits, fake_ptm(), lambda status: None))
