"""The grid of a comparison: every method on every split and seed. Each cell is a pure function of its fields.

A cell's file is named by a digest of all that decides its numbers. So a grid that was interrupted or has grown runs
only the missing cells, and a row that was edited is run again.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedbbpt.bench.methods.controls import CONTROLS, ControlInputs
from fedbbpt.bench.methods.records import Point, Record
from fedbbpt.bench.methods.rows import Learns, MethodRow
from fedbbpt.bench.methods.search import curve, federations, search
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.limits import MAX_ROUNDS
from fedbbpt.seeds import rng
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.types import LabelledExamples

IID = "iid"


class Conditions(Protocol):
    """What all cells of a grid share."""

    @property
    def task(self) -> str:
        """The name of the task, which is that of a preset, or demo."""
        ...

    @property
    def source(self) -> str:
        """The path of the task's data."""
        ...

    @property
    def reading(self) -> Mapping[str, str]:
        """The keys of a job's `[data]` that say how to read the source."""
        ...

    @property
    def ptm(self) -> PtmSection:
        """The model, and how it is loaded."""
        ...

    @property
    def clients(self) -> int:
        """The number of members."""
        ...

    @property
    def budget(self) -> int:
        """The most queries of one run."""
        ...


def job_tables(grid: Conditions, split: str, seed: int, *, shots: int, dev_shots: int) -> dict[str, Any]:
    """Returns the tables of a job that are the same for all rows of a grid."""
    partition = {"partition": "iid"} if split == IID else {"partition": "dirichlet", "alpha": float(split)}
    return {
        # Every round takes at least one query, unless the row says how many rounds there are.
        "run": {"name": "bench", "seed": seed, "rounds": min(grid.budget, MAX_ROUNDS)},
        "ptm": grid.ptm.model_dump(mode="json"),
        "task": {"preset": "" if grid.task == "demo" else grid.task},
        "data": {
            "source": grid.source,
            **grid.reading,
            "shots_per_class": shots,
            "dev_shots_per_class": dev_shots,
            **partition,
        },
        "cohort": {"clients": grid.clients},
    }


def digest_of(job: Job, *others: str | int | None) -> str:
    """Returns a digest of all that decides the numbers of a cell: its job, and what the job does not say."""
    # Only the last part of the data's path counts, so that results do not depend on where the data is stored.
    source = Path(job.data.source).name
    decisive = job.model_dump_json(exclude={"ptm": {"address", "threads"}, "data": {"source"}})
    return hashlib.sha256(json.dumps([decisive, source, *others]).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Cell:
    """A control or a method on one split and seed. The budget ends a search, not `job.run.rounds`."""

    method: str
    task: str
    split: str
    job: Job
    learns: Learns | None
    """The examples that a method searches with. None for a control, which does not use the job's method."""
    budget: int
    test_examples: int

    @property
    def file_name(self) -> str:
        """The name of the cell's file, with a digest of all that decides its numbers."""
        others = (self.learns, self.budget, self.test_examples, MANUAL_PROMPTS[self.task])
        digest = digest_of(self.job, *others)
        return f"{self.task}-{self.split}-{self.method}-{self.job.run.seed}-{digest}.json"


@dataclass(frozen=True, slots=True)
class Grid:
    """The task, splits, seeds and methods of a comparison, and everything else that all cells share."""

    task: str
    source: str
    """Path of the task's data."""
    splits: tuple[str, ...]
    """Each is the alpha of a Dirichlet partition, or iid."""
    seeds: tuple[int, ...]
    budget: int
    """Queries of one run, on training and dev examples together."""
    methods: tuple[str | MethodRow, ...]
    """Names of controls, and rows."""
    clients: int
    shots: int
    """Training examples of each class over all clients, and as many dev examples."""
    ptm: PtmSection
    """The model, and how it is loaded."""
    test_examples: int
    """Most test examples. 0: all."""
    reading: Mapping[str, str] = field(default_factory=dict)
    """The keys of a job's `[data]` that say how to read the source, such as `text_column`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all methods, in order."""
        return tuple(method if isinstance(method, str) else method.name for method in self.methods)

    def cells(self) -> tuple[Cell, ...]:
        """Returns all cells, the first seed of everything first. Raises InvalidJob."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for split in self.splits:
                for method in self.methods:
                    job = job_tables(self, split, seed, shots=self.shots, dev_shots=self.shots)
                    if isinstance(method, str):
                        yield self._cell(method, split, Job.model_validate(job), None)
                        continue
                    found = method.job(job, MANUAL_PROMPTS[self.task])
                    yield self._cell(method.name, split, found, method.learns)

    def _cell(self, name: str, split: str, job: Job, learns: Learns | None) -> Cell:
        return Cell(name, self.task, split, job, learns, self.budget, self.test_examples)


@dataclass(frozen=True, slots=True)
class _Found:
    """The result and the cost of a cell's method or control."""

    curve: tuple[Point, ...]
    seconds: float
    queries: int
    answers: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


def measure(cell: Cell, ptm: Ptm) -> Record:
    """Runs a cell. All but its seconds is deterministic. Raises InvalidData, InvalidJob, InvalidInput."""
    splits = prepare(cell.job).completed_by(ptm)
    test = sample_test_examples(splits.test, cell.test_examples)
    before = ptm.usage().queries
    if cell.learns is None:
        found = _run_control(cell, splits, test, ptm)
    else:
        found = _run_search(cell, cell.learns, splits, test, ptm)
    return Record(
        method=cell.method,
        split=cell.split,
        seed=cell.job.run.seed,
        curve=found.curve,
        answers=found.answers,
        bytes_up=found.bytes_up,
        bytes_down=found.bytes_down,
        queries_evaluation=ptm.usage().queries - before - found.queries,
        test_examples=len(test),
        seconds=found.seconds,
    )


def _run_control(cell: Cell, splits: Splits, test: LabelledExamples, ptm: Ptm) -> _Found:
    started = time.monotonic()
    result = CONTROLS[cell.method](ControlInputs(ptm, splits, test, MANUAL_PROMPTS[cell.task]))
    point = Point(round=0, queries=result.queries, bytes=0, last=result.accuracy, best=result.accuracy)
    return _Found((point,), time.monotonic() - started, result.queries)


def _run_search(cell: Cell, learns: Learns, splits: Splits, test: LabelledExamples, ptm: Ptm) -> _Found:
    before, started = ptm.usage().queries, time.monotonic()
    parts = federations(splits, learns)
    rounds = search(parts, ptm, cell.budget)
    seconds, queries = time.monotonic() - started, ptm.usage().queries - before
    points, last = curve(rounds, parts, test, ptm), rounds[-1]
    if learns != "together":  # all examples are in one place, or each client keeps to itself: nothing is sent
        return _Found(tuple(point.model_copy(update={"bytes": 0}) for point in points), seconds, queries)
    return _Found(
        points,
        seconds,
        queries,
        answers=sum(prompt.answers for prompt in last),
        bytes_up=sum(prompt.bytes_up for prompt in last),
        bytes_down=sum(prompt.bytes_down for prompt in last),
    )


def sample_test_examples(test: LabelledExamples, count: int) -> LabelledExamples:
    """Returns at most `count` test examples, the same for all cells; 0 returns all."""
    if not count or len(test) <= count:
        return test
    rows = rng(0, "bench", "test").permutation(len(test))[:count]
    rows.sort()
    return test.take(rows)
