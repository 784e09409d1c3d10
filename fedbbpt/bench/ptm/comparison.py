"""Times several ways to score the same jobs in turns, so that a disturbance of the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import LatentPrompts, Scores

Scorer: TypeAlias = Callable[[LatentPrompts], Callable[[], Scores]]
"""Prepares the scoring of one job's prompts, and returns the call that is timed."""
Progress: TypeAlias = Callable[[str], None]
"""Shows the user the current step."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The speeds and scores of several scorers on the same jobs."""

    rates: Mapping[str, tuple[float, ...]]
    """Pairs per second of each scorer, one value for each timed job."""
    scores: Mapping[str, Scores]
    """Each scorer's scores of the warm-up job, which is not timed."""

    def ratios(self, one: str, other: str) -> tuple[float, ...]:
        """Returns the rates of `one` divided by those of `other`, job by job."""
        return tuple(a / b for a, b in zip(self.rates[one], self.rates[other], strict=True))

    def largest_difference(self, one: str, other: str) -> float:
        """Returns the largest absolute difference between the scores of `one` and `other`."""
        return float(np.abs(self.scores[one] - self.scores[other]).max())


def compare(scorers: Mapping[str, Scorer], workload: Workload, repeats: int, progress: Progress) -> Comparison:
    """Scores one warm-up job and `repeats` timed jobs with each scorer; every second job in reverse order."""
    rates: dict[str, list[float]] = {name: [] for name in scorers}
    scores: dict[str, Scores] = {}
    for repeat in range(repeats + 1):
        prompts = workload.latent(repeat)
        for name in list(scorers)[:: -1 if repeat % 2 else 1]:
            progress(f"{name}, {repeat} of {repeats}")
            call = scorers[name](prompts)
            started = time.perf_counter()
            found = call()
            seconds = time.perf_counter() - started
            if repeat:
                rates[name].append(workload.pairs / seconds)
            else:
                scores[name] = found
    return Comparison({name: tuple(found) for name, found in rates.items()}, scores)
