"""The grid of sizes: every number of examples on every split and seed, without a search and with each of several rows.

Each cell is a pure function of its fields. Cells with the same seed and size have the same examples.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from fedbbpt import seeds
from fedbbpt.bench.data_sizes import baselines
from fedbbpt.bench.data_sizes.baselines import READOUT
from fedbbpt.bench.data_sizes.records import Record, Result
from fedbbpt.bench.kept_scores import Kept, KeptScores
from fedbbpt.bench.methods.grid import digest_of, job_tables, sample_test_examples
from fedbbpt.bench.methods.rows import Learns, MethodRow, built_in
from fedbbpt.bench.methods.search import accuracies, federations, result_of, search
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.sections import PtmSection
from fedbbpt.tasks.manual_prompts import MANUAL_PROMPTS
from fedbbpt.types import LabelledExamples

MOST_DEV_SHOTS = 64
"""Dev examples of each class, at most. There are as many as training examples up to that."""
FED_READOUT = "fed-readout"
"""The row that fits a readout in a federation."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row, or all methods without a search, on one split, size and seed."""

    method: str
    """The name of the row in tables; empty for the methods without a search."""
    learns: Learns
    task: str
    split: str
    shots: int
    most: int
    """Most training examples of all members; 0: no limit."""
    job: Job
    budget: int
    test_examples: int

    @property
    def file_name(self) -> str:
        """The name of the cell's file, with a digest of all that decides its numbers."""
        digest = digest_of(self.job, self.learns, self.most, self.budget, self.test_examples)
        name = f"{self.method}-{self.learns}" if self.method else "baselines"
        return f"{self.task}-{self.split}-{self.shots}-{name}-{self.job.run.seed}-{digest}.json"


@dataclass(frozen=True, slots=True)
class DataGrid:
    """The task, sizes, splits, seeds and rows of a comparison, and everything else that all cells share."""

    task: str
    source: str
    """Path of the task's data."""
    shots: tuple[int, ...]
    """Training examples of each class over all members. 0 stands for all that there are, `most` at most."""
    most: int
    splits: tuple[str, ...]
    """Each is the alpha of a Dirichlet partition, or iid."""
    seeds: tuple[int, ...]
    rows: tuple[MethodRow, ...]
    """The searches."""
    learns: tuple[Learns, ...]
    """With whose examples each search is run."""
    budget: int
    """Queries of one search, of all members together, on training and dev examples."""
    clients: int
    ptm: PtmSection
    """The model, and how it is loaded."""
    test_examples: int
    """Most test examples. 0: all."""
    reading: Mapping[str, str] = field(default_factory=dict)
    """The keys of a job's `[data]` that say how to read the source, such as `text_column`."""

    def cells(self) -> tuple[Cell, ...]:
        """Returns all cells, the first seed of everything first. Raises InvalidJob."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        readout = built_in()[FED_READOUT]
        for seed in self.seeds:
            for shots in self.shots:
                for split in self.splits:
                    dev_shots = min(shots or MOST_DEV_SHOTS, MOST_DEV_SHOTS)
                    tables = job_tables(self, split, seed, shots=shots, dev_shots=dev_shots)
                    yield self._cell("", "alone", split, shots, readout.job(tables, ""))
                    yield self._cell(READOUT, "together", split, shots, readout.job(tables, ""))
                    for row in self.rows:
                        job = row.job(tables, MANUAL_PROMPTS[self.task])
                        for learns in self.learns:
                            yield self._cell(row.name, learns, split, shots, job)

    def _cell(self, method: str, learns: Learns, split: str, shots: int, job: Job) -> Cell:
        most = 0 if shots else self.most
        return Cell(method, learns, self.task, split, shots, most, job, self.budget, self.test_examples)


@lru_cache(maxsize=1)
def _kept_scores(ptm: PtmSection) -> Kept:
    """Returns the scores that the cells of this process share: most of them ask for the same pairs."""
    return {}


def measure(cell: Cell, ptm: Ptm) -> Record:
    """Runs a cell. All but its seconds is deterministic. Raises InvalidData, InvalidJob, InvalidInput."""
    started = time.monotonic()
    ptm = KeptScores(ptm, _kept_scores(cell.job.ptm))
    splits = thinned(prepare(cell.job), cell.most).completed_by(ptm)
    test = sample_test_examples(splits.test, cell.test_examples)
    if cell.method:
        results: tuple[Result, ...] = (_search(cell, splits, test, ptm),)
    else:
        members, columns = baselines.ask(splits, test, ptm)
        results = baselines.measure(members, columns, len(splits.job.task.labels))
    return Record(
        split=cell.split,
        shots=cell.shots,
        seed=cell.job.run.seed,
        results=results,
        train_examples=sum(map(len, splits.train)),
        dev_examples=sum(map(len, splits.dev)),
        test_examples=len(test),
        seconds=time.monotonic() - started,
    )


def _search(cell: Cell, splits: Splits, test: LabelledExamples, ptm: Ptm) -> Result:
    parts = federations(splits, cell.learns)
    rounds = search(parts, ptm, cell.budget)
    results = [result_of([each[index] for each in rounds], part, ptm) for index, part in enumerate(parts)]
    found = [accuracies(z[None], part, test, ptm)[0] for z, part in zip(results, parts, strict=True)]
    queries = sum(prompt.queries for prompt in rounds[-1])
    return Result(method=cell.method, learns=cell.learns, accuracy=float(np.mean(found)), queries=queries)


def thinned(splits: Splits, most: int) -> Splits:
    """Returns the splits with about `most` training examples in all, the same share of each member's, at least one."""
    total = sum(map(len, splits.train))
    if not most or total <= most:
        return splits
    parts = []
    for index, part in enumerate(splits.train):
        rows = seeds.rng(splits.job.run.seed, "bench", "most", index).permutation(len(part))
        rows = rows[: max(1, len(part) * most // total)]
        rows.sort()
        parts.append(part.take(rows))
    return replace(splits, train=tuple(parts))
