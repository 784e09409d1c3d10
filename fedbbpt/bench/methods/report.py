"""Writes records as a Markdown page and as JSON, with means and standard deviations over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from fedbbpt.bench.methods.grid import IID, Grid
from fedbbpt.bench.methods.records import Record
from fedbbpt.host.json_text import json_text

COLUMNS = (
    "method",
    "best on dev %",
    "last %",
    "below peak",
    "queries",
    "queries to {target} %",
    "bytes up",
    "bytes down",
    "bytes in all",
    "seconds",
)
"""Headers of the table. {target} is the accuracy to which queries are counted, in percent."""

CAPTION = """\
Mean ± standard deviation over the seeds. *Best on dev* is the test accuracy of the prompt with the lowest dev loss,
*last* that of the last prompt. *Below peak* says by how many points the best prompt by dev loss ends below the highest
test accuracy that it had at any measured round, for the worst seed. *Queries* are the (prompt, example) pairs that the
clients asked for, training and dev, until the last prompt was measured on dev data; no method exceeds the budget.
*Queries to {target} %* counts them until the first measured round whose best prompt by dev loss has that test accuracy;
the number of seeds that reach it is in brackets. Bytes up and down are those of one client in one round: serialised
protocol messages, without gRPC's frames. *Bytes in all* are those of all clients and rounds. Seconds are the duration
of the search in one process. Searches without bytes are not federations: all examples are in one place, or each client
searches alone, and the accuracy is the mean over clients.
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The records of one method on one split."""

    method: str
    split: str
    records: tuple[Record, ...]

    def cells(self, target: float) -> tuple[str, ...]:
        """Returns the summary as cells of a table with the columns COLUMNS. `target` is an accuracy from 0 to 1."""
        ends = [record.end for record in self.records]
        reached = [found for record in self.records if (found := record.queries_to(target)) is not None]
        travelled = any(record.answers for record in self.records)
        searched = any(record.end.round for record in self.records)
        bytes_ = [
            f"{mean(record.up_per_answer for record in self.records):,.0f}",
            f"{mean(record.down_per_answer for record in self.records):,.0f}",
            f"{mean(end.bytes for end in ends):,.0f}",
        ]
        return (
            self.method,
            spread([100 * end.best for end in ends]),
            spread([100 * end.last for end in ends]) if searched else "",
            f"{100 * max(record.below_peak for record in self.records):.1f}" if searched else "",
            f"{mean(end.queries for end in ends):,.0f}",
            f"{mean(reached):,.0f} ({len(reached)} of {len(ends)})" if reached else f"(0 of {len(ends)})",
            *(bytes_ if travelled else ["", "", ""]),
            f"{mean(record.seconds for record in self.records):.0f}",
        )


def spread(values: Sequence[float]) -> str:
    """Returns the mean and, with several values, the sample standard deviation."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def summaries(grid: Grid, records: Sequence[Record]) -> tuple[Summary, ...]:
    """Returns a summary of each method on each split, in the grid's order."""
    return tuple(
        Summary(name, split, tuple(r for r in records if (r.method, r.split) == (name, split)))
        for split in grid.splits
        for name in grid.names
    )


def model_name(grid: Grid) -> str:
    """Returns the model's name, for a local model only that of its folder."""
    return Path(grid.ptm.model).name if Path(grid.ptm.model).is_dir() else grid.ptm.model


def title(split: str) -> str:
    """Returns a split's name for people."""
    return "IID" if split == IID else f"Dirichlet({split})"


def markdown(grid: Grid, records: Sequence[Record], target: float, command: str, pictures: Sequence[Path]) -> str:
    """Returns the page of a comparison, with a table for each split. `command` is the one that made it."""
    percent = f"{100 * target:g}"
    header = [column.format(target=percent) for column in COLUMNS]
    lines = [
        f"# {grid.task}",
        "",
        f"{model_name(grid)} in {grid.ptm.precision}; {grid.clients} clients; "
        f"{grid.shots} shots of each class in total, and as many dev examples;",
        f"at most {grid.budget:,} queries; {records[0].test_examples:,} test examples; "
        f"seeds {', '.join(map(str, grid.seeds))}.",
        "",
        "```console",
        f"$ {command}",
        "```",
        "",
        CAPTION.format(target=percent).strip(),
        "",
    ]
    found = summaries(grid, records)
    for split in grid.splits:
        rows = [header, ["---"] + ["--:"] * (len(header) - 1)]
        rows += [list(summary.cells(target)) for summary in found if summary.split == split]
        lines += [f"## {title(split)}", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    for picture in pictures:
        lines += [f"![{picture.stem}]({picture.name})", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def write(
    grid: Grid, records: Sequence[Record], target: float, command: str, pictures: Sequence[Path], folder: Path
) -> tuple[Path, Path]:
    """Writes TASK.md and TASK.json into the folder, and returns their paths."""
    page, data = folder / f"{grid.task}.md", folder / f"{grid.task}.json"
    page.write_text(markdown(grid, records, target, command, pictures), encoding="utf-8")
    kept = {"command": command, "target": target, "cells": [record.model_dump(mode="json") for record in records]}
    data.write_text(json_text(kept, indent=1) + "\n", encoding="utf-8")
    return page, data
