"""A job whose clients compute nothing, and the updates that they answer with: arbitrary numbers of the right shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.job.config import Job
from fedbbpt.methods import server_half
from fedbbpt.types import Array, Arrays, Measurement, Orders, Task, Truncation, Update

METHODS: Mapping[str, Mapping[str, object]] = {
    "fed-cma": {"name": "fed-cma", "step": "ranks"},
    "newton": {"name": "fed-cma"},
    "fed-readout": {"name": "fed-readout", "readout": {"ridges": [0.1]}},
    "fed-bpt": {"name": "fed-bpt"},
    "fed-bpt-ranks": {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "diagonal"},
    "fed-bbpt": {"name": "fed-bbpt"},
    "fed-bbpt-scalars": {"name": "fed-bbpt", "uplink": "scalars"},
    "fedavg-bbt": {"name": "fedavg-bbt"},
}
"""The method's section of the job by the name that the benchmark gives it.

With one ridge, the updates of a readout have the same shape in all rounds.
"""
SUMMED = ("fed-cma", "newton", "fed-readout")
"""The methods that can use secure aggregation."""
WEIGHT = 8.0
MEASURED = Measurement(dev_loss_sum=4.0, dev_examples=8, dev_correct=5, queries=100)


def job_keys(method: str, dim: int, clients: int, rounds: int, aggregation: str = "plain") -> dict[str, Any]:
    """Returns the keys of a measurement's job: all clients take part in each of `rounds`, the last one included.

    A readout of two classes has two numbers for each column, so that it has about as many as z has entries.
    """
    reads = METHODS[method]["name"] == "fed-readout"
    columns = [f"column {number}" for number in range(dim // 2 - 3)]
    searched = {"prompt": {"kind": "none"}, "columns": columns} if reads else {"prompt": {"dim": dim}}
    return {
        "run": {"rounds": rounds - 1, "seed": 1},
        "task": {"labels": ["no", "yes"], **searched},
        "method": dict(METHODS[method]),
        "cohort": {"clients": clients, "deadline_seconds": 600.0},
        "privacy": {"aggregation": aggregation},
    }


def arrays(job: Job) -> Arrays:
    """Returns arrays such as a client of this job sends."""
    half = server_half(job.definition(), job.method, job.space())
    rng = np.random.default_rng(0)
    expected = half.expected(half.init(0))
    return {name: _array(form, rng) for name, form in expected.items()}


def _array(form: tuple[int, ...] | Orders, rng: np.random.Generator) -> Array:
    if isinstance(form, Orders):
        return np.tile(np.arange(form.places, dtype=np.uint8), (form.rows, 1))
    return rng.random(form, dtype=np.float32) * np.float32(WEIGHT)


@dataclass(frozen=True, slots=True)
class ZeroCompute:
    """A client's half of any method, and its dev objective, that answer without looking at the task."""

    arrays: Arrays
    dim: int
    weight: float = WEIGHT
    queries: int = 0
    truncation: Truncation | None = None

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """Returns the same update for each task."""
        return Update(self.arrays, WEIGHT), private

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """Returns a prompt of zeros."""
        return np.zeros(self.dim, np.float32)

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the same measurement for each prompt."""
        return MEASURED

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> Sequence[Measurement]:
        """Returns the same measurement for each prompt."""
        return [MEASURED] * len(prompts)
