"""The grid of a comparison: every method on every split and seed, each cell a pure function of what it holds.

A cell's file is named by a digest of all that decides its numbers: a grid that was cut short, or that grew, runs only
what is missing, and a row that was changed is run again.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.bench.methods.controls import CONTROLS, Setting
from fedbbpt.bench.methods.records import Point, Record
from fedbbpt.bench.methods.rows import Learns, Row
from fedbbpt.bench.methods.search import curve, federations, play
from fedbbpt.federation.splits import prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.seeds import rng
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.types import LabelledExamples, Precision

IID = "iid"

MAX_ROUNDS = 100_000
"""As many as a job takes."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A control by name, or a method with its job; `job.run.rounds` is no plan, the budget ends a search."""

    method: str
    task: str
    split: str
    job: Job
    learns: Learns | None
    """None of a control, which has no use for the job's method."""
    budget: int
    test_examples: int

    @property
    def file_name(self) -> str:
        # The folder's name stands for the data: results do not hang on where a user keeps them.
        source = Path(self.job.data.source).name
        decisive = self.job.model_dump_json(exclude={"ptm": {"address", "threads"}, "data": {"source"}})
        parts = [decisive, source, self.learns, self.budget, self.test_examples, MANUAL_PROMPTS[self.task]]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        return f"{self.task}-{self.split}-{self.method}-{self.job.run.seed}-{digest}.json"


@dataclass(frozen=True, slots=True)
class Grid:
    task: str
    source: str
    splits: tuple[str, ...]
    """Each the alpha of a Dirichlet partition, or iid."""
    seeds: tuple[int, ...]
    budget: int
    """Queries of one run, training and dev."""
    methods: tuple[str | Row, ...]
    clients: int
    shots: int
    model: str
    precision: Precision
    test_examples: int
    """Test examples at most; 0: all."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(method if isinstance(method, str) else method.name for method in self.methods)

    def cells(self) -> tuple[Cell, ...]:
        """Seeds last, so that the first seed of everything is there first. Raises InvalidJob."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for split in self.splits:
                for method in self.methods:
                    job = self._job(split, seed)
                    if isinstance(method, str):
                        yield self._cell(method, split, Job.model_validate(job), None)
                        continue
                    if method.learns == "pooled":
                        job["cohort"] = {"clients": 1}
                    found = method.job(job, MANUAL_PROMPTS[self.task])
                    yield self._cell(method.name, split, found, method.learns)

    def _cell(self, name: str, split: str, job: Job, learns: Learns | None) -> Cell:
        return Cell(name, self.task, split, job, learns, self.budget, self.test_examples)

    def _job(self, split: str, seed: int) -> dict[str, Any]:
        """The tables of a job that are the same for all rows."""
        partition = {"partition": "iid"} if split == IID else {"partition": "dirichlet", "alpha": float(split)}
        return {
            # Every round takes a query at least.
            "run": {"name": "bench", "seed": seed, "rounds": min(self.budget, MAX_ROUNDS)},
            "ptm": {"model": self.model, "precision": self.precision},
            "task": {"preset": "" if self.task == "demo" else self.task},
            "data": {
                "source": self.source,
                "shots_per_class": self.shots,
                "dev_shots_per_class": self.shots,
                **partition,
            },
            "cohort": {"clients": self.clients},
        }


def measure(cell: Cell, ptm: Ptm) -> Record:
    """Plays a cell. Deterministic but for its seconds. Raises InvalidData, InvalidJob, InvalidInput."""
    splits = prepare(cell.job)
    test = cut(splits.test, cell.test_examples)
    before, started = ptm.usage().queries, time.monotonic()
    if cell.learns is None:
        setting = Setting(ptm, splits, test, MANUAL_PROMPTS[cell.task])
        found = CONTROLS[cell.method](setting)
        seconds, own = time.monotonic() - started, found.queries
        points: tuple[Point, ...] = (Point(round=0, queries=own, bytes=0, last=found.accuracy, best=found.accuracy),)
        answers = bytes_up = bytes_down = 0
    else:
        parts = federations(splits, cell.learns)
        turns = play(parts, ptm, cell.budget)
        seconds, own = time.monotonic() - started, ptm.usage().queries - before
        points = curve(turns, parts, test, ptm)
        final = turns[-1]
        # Where all data are in one place, or each stays with its owner for good, nothing has to travel.
        travels = cell.learns == "together"
        answers, bytes_up, bytes_down = (
            travels * sum(count) for count in zip(*((s.answers, s.bytes_up, s.bytes_down) for s in final), strict=True)
        )
        if not travels:
            points = tuple(point.model_copy(update={"bytes": 0}) for point in points)
    return Record(
        method=cell.method,
        split=cell.split,
        seed=cell.job.run.seed,
        curve=points,
        answers=answers,
        bytes_up=bytes_up,
        bytes_down=bytes_down,
        queries_evaluation=ptm.usage().queries - before - own,
        test_examples=len(test),
        seconds=seconds,
    )


def cut(test: LabelledExamples, count: int) -> LabelledExamples:
    """`count` test examples at most, the same for all cells; 0: all."""
    if not count or len(test) <= count:
        return test
    rows = rng(0, "bench", "test").permutation(len(test))[:count]
    rows.sort()
    return test.take(rows)
