"""Ways to score the same jobs, in turns: what disturbs the machine for a while disturbs all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import LatentPrompts, Scores

Way: TypeAlias = Callable[[LatentPrompts], Callable[[], Scores]]
"""Gets ready for a job, and gives what is timed."""
Note: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turns:
    rates: Mapping[str, tuple[float, ...]]
    """Pairs per second of each way, a number for each job."""
    scores: Mapping[str, Scores]
    """Of a first job, which was not timed."""

    def ratios(self, one: str, other: str) -> tuple[float, ...]:
        """Of neighbours."""
        return tuple(a / b for a, b in zip(self.rates[one], self.rates[other], strict=True))

    def apart(self, one: str, other: str) -> float:
        """The largest difference of scores."""
        return float(np.abs(self.scores[one] - self.scores[other]).max())


def take_turns(ways: Mapping[str, Way], workload: Workload, repeats: int, note: Note) -> Turns:
    """Every other turn goes backwards."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, Scores] = {}
    for repeat in range(repeats + 1):
        prompts = workload.latent(repeat)
        for name in list(ways)[:: -1 if repeat % 2 else 1]:
            note(f"{name}, {repeat} of {repeats}")
            call = ways[name](prompts)
            started = time.perf_counter()
            found = call()
            seconds = time.perf_counter() - started
            if repeat:
                rates[name].append(workload.pairs / seconds)
            else:
                scores[name] = found
    return Turns({name: tuple(found) for name, found in rates.items()}, scores)
