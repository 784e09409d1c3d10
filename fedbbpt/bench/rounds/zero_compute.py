"""A job whose clients compute nothing, and the updates that they answer with: arbitrary numbers of the right shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.job.config import Job
from fedbbpt.methods import server_half, told_settings
from fedbbpt.methods.update_rules import Weight
from fedbbpt.types import Array, Arrays, Measurement, Orders, Task, Truncation, Update

METHODS: Mapping[str, Mapping[str, object]] = {
    "fed-cma": {"name": "fed-cma", "step": "ranks"},
    "newton": {"name": "fed-cma"},
    "fed-readout": {"name": "fed-readout", "refit": False, "readout": {"ridges": [0.1]}},
    "fed-bpt": {"name": "fed-bpt"},
    "fed-bpt-ranks": {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "diagonal"},
    "fed-bbpt": {"name": "fed-bbpt"},
    "fed-bbpt-scalars": {"name": "fed-bbpt", "uplink": "scalars"},
    "fedavg-bbt": {"name": "fedavg-bbt"},
    "fed-sp": {"name": "fed-sp", "server_shard": False},
}
"""The method's section of the job by the name that the benchmark gives it.

With one ridge, the updates of a readout have the same shape in all rounds.
"""
SUMMED = ("fed-cma", "newton", "fed-readout")
"""The methods that can use secure aggregation."""
MEASURED = Measurement(dev_loss_sum=4.0, dev_examples=8, dev_correct=5, queries=100)


def job_keys(method: str, dim: int, clients: int, rounds: int, aggregation: str = "plain") -> dict[str, Any]:
    """Returns the keys of a measurement's job: all clients take part in each of `rounds`, the last one included.

    A readout of two classes has two numbers for each column, so that it has about as many as z has entries. A prefix
    of one token in one layer has two numbers for each unit of its width.
    """
    searched: dict[str, object] = {"prompt": {"dim": dim}}
    match METHODS[method]["name"]:
        case "fed-readout":
            searched = {"prompt": {"kind": "none"}, "columns": [f"column {number}" for number in range(dim // 2 - 3)]}
        case "fed-sp":
            searched = {"prompt": {"kind": "deep", "tokens": 1, "layers": 1, "heads": 1, "width": max(1, dim // 2)}}
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
    rng, weight = np.random.default_rng(0), np.float32(weight_of(job))
    expected = half.expected(half.init(0))
    found = {name: _array(form, rng, weight) for name, form in expected.items()}
    if job.method.name == "fed-readout":  # its sums must fit each other, as zeros do
        found = {name: np.zeros_like(array) for name, array in found.items()} | {"dev_weight": np.full(1, weight)}
    return found


def _array(form: tuple[int, ...] | Orders, rng: np.random.Generator, weight: np.float32) -> Array:
    if isinstance(form, Orders):
        return np.tile(np.arange(form.places, dtype=np.uint8), (form.rows, 1))
    return rng.random(form, dtype=np.float32) * weight


def weight_of(job: Job) -> float:
    """Returns the weight of the updates of a client with 8 examples."""
    rules = job.definition().rules(told_settings(job.definition(), job.method))
    return 1.0 if rules.weight is Weight.ONE else 8.0


@dataclass(frozen=True, slots=True)
class ZeroCompute:
    """A client's half of any method, and its dev objective, that answer without looking at the task."""

    arrays: Arrays
    dim: int
    weight: float
    queries: int = 0
    truncation: Truncation | None = None

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """Returns the same update for each task."""
        return Update(self.arrays, self.weight), private

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """Returns a prompt of zeros."""
        return np.zeros(self.dim, np.float32)

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the same measurement for each prompt."""
        return MEASURED

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> Sequence[Measurement]:
        """Returns the same measurement for each prompt."""
        return [MEASURED] * len(prompts)
