"""Prints Markdown tables of FedOne's runs: their losses after equal numbers of queries, and their final accuracies.

Usage: python experiments/fedone.py OUT, where OUT/SIZE-SEED are the folders of runs with SIZE clients a round.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROWS = 8
"""Rows of the table of losses."""

Run = dict[str, Any]


def read(folder: Path) -> Run:
    """Returns a run's summary together with the reports of its rounds."""
    summary: Run = json.loads((folder / "summary.json").read_text())
    rounds = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return summary | {"reports": rounds}


def loss_at(run: Run, queries: float, width: float) -> float | None:
    """Returns the mean training loss of the rounds that ended in the last `width` of `queries` queries."""
    seen, losses = 0, []
    for report in run["reports"]:
        seen += report["queries"]
        if report["train_loss"] is not None and queries - width < seen <= queries:
            losses.append(report["train_loss"])
    return mean(losses) if losses else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def main(out: str) -> None:
    """Prints both tables for the runs in a folder."""
    runs: dict[int, list[Run]] = defaultdict(list)
    for folder in sorted(Path(out).iterdir()):
        if (folder / "summary.json").exists():
            runs[int(folder.name.partition("-")[0])].append(read(folder))
    sizes = sorted(runs)
    most = min(run["queries"] for found in runs.values() for run in found)
    lines = []
    for part in range(1, ROWS + 1):
        queries = most * part / ROWS
        cells = [
            [loss for run in runs[size] if (loss := loss_at(run, queries, most / ROWS)) is not None] for size in sizes
        ]
        lines.append([f"{queries:,.0f}", *(f"{mean(cell):.4f}" if cell else "" for cell in cells)])
    print(table(["queries", *(f"train loss, {size} a round" for size in sizes)], lines), end="\n\n")
    ends = [
        [
            str(size),
            str(runs[size][0]["rounds"]),
            f"{mean(run['queries'] for run in runs[size]):,.0f}",
            f"{100 * mean(run['accuracy_before'] for run in runs[size]):.1f}",
            f"{100 * mean(run['accuracy_after'] for run in runs[size]):.1f}",
            ", ".join(f"{100 * run['accuracy_after']:.1f}" for run in runs[size]),
            f"{mean(run['loss_after'] for run in runs[size]):.4f}",
        ]
        for size in sizes
    ]
    head = ["clients a round", "rounds", "queries", "before %", "after %", "each seed", "test loss"]
    print(table(head, ends))


if __name__ == "__main__":
    main(sys.argv[1])
