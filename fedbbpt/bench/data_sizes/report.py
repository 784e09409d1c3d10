"""Writes the records of a grid of sizes as a Markdown page and as JSON, with means and standard errors over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

from fedbbpt.bench.data_sizes.grid import DataGrid
from fedbbpt.bench.data_sizes.records import BEST_ALONE, Record, Result
from fedbbpt.bench.methods.report import title
from fedbbpt.bench.methods.rows import Learns
from fedbbpt.host.json_text import json_text

COLUMNS = ("method", "alone %", "together %", "pooled %", "queries together")
SCOPES: tuple[Learns, ...] = ("alone", "together", "pooled")
assert set(SCOPES) == set(get_args(Learns))

CAPTION = """\
Test accuracy, mean ± standard error over the seeds. *Alone*: each member learns from its own examples and chooses with
its own dev examples; the accuracy is the mean over members. *Together*: a federation of all members. *Pooled*: all
examples in one place. *Best alone* is the best that a member has without the others: zero-shot, its own offsets or its
own readout, whichever is most accurate on its dev examples. Offsets together are those of all examples, because the
sums that they are fitted from add up. *Queries together* are the (prompt, example) pairs of all members, training and
dev. The test examples are scored once, at the end.
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of one method on one split and size, over the seeds."""

    results: tuple[Result, ...]

    @property
    def accuracy(self) -> float:
        """The mean over the seeds, in percent."""
        return 100 * mean(result.accuracy for result in self.results)

    @property
    def error(self) -> float | None:
        """The standard error of the mean, in percentage points; None for a single seed."""
        values = [100 * result.accuracy for result in self.results]
        return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None

    def __str__(self) -> str:
        return f"{self.accuracy:.1f}" + ("" if self.error is None else f" ± {self.error:.1f}")


def summary(records: Sequence[Record], split: str, shots: int, method: str, learns: Learns) -> Summary | None:
    """Returns the results of a method, None if it was not run so."""
    found = tuple(
        result
        for record in records
        if (record.split, record.shots) == (split, shots)
        for result in record.results
        if (result.method, result.learns) == (method, learns)
    )
    return Summary(found) if found else None


def methods(records: Sequence[Record]) -> tuple[str, ...]:
    """Returns the names of all methods in the order of their records, the best of a member alone last."""
    names = dict.fromkeys(result.method for record in records for result in record.results)
    return (*(name for name in names if name != BEST_ALONE), BEST_ALONE)


def rows(records: Sequence[Record], split: str, shots: int) -> list[tuple[str, ...]]:
    """Returns the table of one split and size, with the columns COLUMNS."""
    table = []
    for method in methods(records):
        found = [summary(records, split, shots, method, learns) for learns in SCOPES]
        together = found[SCOPES.index("together")]
        queries = f"{mean(result.queries for result in together.results):,.0f}" if together else ""
        table.append((method, *("" if each is None else str(each) for each in found), queries))
    return table


def size_title(records: Sequence[Record], shots: int) -> str:
    """Returns the name of a size for people, with its number of training examples."""
    examples = f"{mean(record.train_examples for record in records if record.shots == shots):,.0f} examples"
    return f"{shots} of each class, {examples}" if shots else f"all, {examples}"


def markdown(grid: DataGrid, records: Sequence[Record], command: str, picture: Path) -> str:
    """Returns the page of a comparison, with a table for each split and size. `command` is the one that made it."""
    model = Path(grid.ptm.model).name if Path(grid.ptm.model).is_dir() else grid.ptm.model
    lines = [
        f"# {grid.task}: accuracy against data",
        "",
        f"{model} in {grid.ptm.precision}; {grid.clients} members; {records[0].test_examples:,} test examples; at most "
        f"{grid.budget:,} queries for a search; seeds {', '.join(map(str, grid.seeds))}.",
        "",
        *("```console", f"$ {command}", "```", ""),
        CAPTION.strip(),
        "",
    ]
    for split in grid.splits:
        lines += [f"## {title(split)}", ""]
        for shots in grid.shots:
            table = [COLUMNS, ("---", *["--:"] * (len(COLUMNS) - 1)), *rows(records, split, shots)]
            lines += [f"### {size_title(records, shots)}", "", *("| " + " | ".join(row) + " |" for row in table), ""]
    return "\n".join([*lines, f"![Test accuracy against the number of examples]({picture.name})"]) + "\n"


def write(grid: DataGrid, records: Sequence[Record], command: str, picture: Path, folder: Path) -> tuple[Path, Path]:
    """Writes TASK-data.md and TASK-data.json into the folder, and returns their paths."""
    page, data = folder / f"{grid.task}-data.md", folder / f"{grid.task}-data.json"
    page.write_text(markdown(grid, records, command, picture), encoding="utf-8")
    kept = {"command": command, "cells": [record.model_dump(mode="json") for record in records]}
    data.write_text(json_text(kept, indent=1) + "\n", encoding="utf-8")
    return page, data
