"""The grid of attacks: each kind of lie by each number of clients against each rule, and a run in which nobody lies.

Each cell is a pure function of its fields. The run is small and real: fed-cma by ranks for a prompt in the class texts
of a sentence encoder, so that a candidate costs one embedding for each class, whatever the number of examples.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedbbpt.bench.attack.attacks import ATTACKS
from fedbbpt.bench.attack.liars import LyingCrew, with_liars
from fedbbpt.bench.methods.grid import digest_of, sample_test_examples
from fedbbpt.bench.methods.search import accuracies
from fedbbpt.federation.crew import Crew, CrewPlan, LocalCrew
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection

HONEST = "nobody lies"
NO_RULE = "none"
TEST_EXAMPLES = 1000


class Record(BaseModel):
    """The result of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    """The kind of lie, or HONEST."""
    liars: int
    rule: str
    """The value of `cohort.robust`."""
    seed: int
    accuracy: float
    """On test examples, of the prompt that the run chose, from 0 to 1."""
    test_examples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A run with some liars."""

    attack: str
    liars: int
    job: Job

    @property
    def file_name(self) -> str:
        """The name of the cell's file, with a digest of all that decides its numbers."""
        digest = digest_of(self.job, self.attack, self.liars, TEST_EXAMPLES)
        return f"attack-{self.attack.replace(' ', '-')}-{self.liars}-{self.job.cohort.robust}-{digest}.json"


@dataclass(frozen=True, slots=True)
class AttackGrid:
    """The attacks, numbers of liars and rules of a comparison, and everything that all cells share."""

    attacks: tuple[str, ...]
    liars: tuple[int, ...]
    rules: tuple[str, ...]
    seeds: tuple[int, ...]
    clients: int
    shots: int
    """Training examples of each class over all clients, and as many dev examples."""
    rounds: int
    ptm: PtmSection

    def cells(self) -> tuple[Cell, ...]:
        """Returns all cells, first those in which nobody lies. Raises InvalidJob."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for rule in self.rules:
                # A rule expects as many liars as it is compared with, and at least one.
                for expected in sorted({min(self.liars)} if rule == NO_RULE else set(self.liars)):
                    yield Cell(HONEST, 0, self._job(rule, expected, seed))
            for liars in self.liars:
                for attack in self.attacks:
                    for rule in self.rules:
                        yield Cell(attack, liars, self._job(rule, liars, seed))

    def _job(self, rule: str, expected: int, seed: int) -> Job:
        tables: dict[str, Any] = {
            "run": {"name": "bench", "seed": seed, "rounds": self.rounds},
            "ptm": self.ptm.model_dump(mode="json"),
            "task": {"prompt": {"side": "class", "dim": 32}},
            "data": {"shots_per_class": self.shots, "dev_shots_per_class": self.shots, "partition": "iid"},
            "method": {"name": "fed-cma", "step": "ranks"},
            "cohort": {"clients": self.clients, "quorum": 1.0},
        }
        if rule != NO_RULE:
            tables["cohort"] |= {"robust": rule, "adversaries": expected}
        return Job.model_validate(tables)


def measure(cell: Cell, ptm: Ptm) -> Record:
    """Runs a cell. All but its seconds is deterministic. Raises InvalidData, InvalidJob, InvalidInput."""
    started = time.monotonic()
    splits = prepare(cell.job).completed_by(ptm)
    crew: Callable[[CrewPlan, Ptm], Crew] = LocalCrew
    test = sample_test_examples(splits.test, TEST_EXAMPLES)
    subject = splits
    if cell.liars:
        attack = ATTACKS[cell.attack]
        subject, crew = with_liars(splits, attack, cell.liars), partial(LyingCrew, attack=attack, liars=cell.liars)
    result, _ = simulate(subject, ptm, crew=crew)
    return Record(
        attack=cell.attack,
        liars=cell.liars,
        rule=cell.job.cohort.robust,
        seed=cell.job.run.seed,
        accuracy=float(accuracies(result.z[None], splits, test, ptm)[0]),
        test_examples=len(test),
        seconds=time.monotonic() - started,
    )
