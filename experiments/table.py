"""Prints the summaries of runs as a Markdown table with a row for each method: means over seeds, and all accuracies.

Usage: python experiments/table.py OUT/*/summary.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

COLUMNS = (
    "method",
    "before %",
    "start %",
    "bias only %",
    "after % (each seed)",
    "after % (mean)",
    "gain",
    "queries",
    "bytes up",
    "bytes down",
    "seconds",
)


def row(method: str, runs: list[dict[str, Any]]) -> list[str]:
    """Returns the cells of a method's row."""
    runs = sorted(runs, key=lambda run: run["seed"])

    def average(key: str) -> float:
        return mean(run[key] for run in runs)

    def percent(key: str) -> str:
        return f"{100 * average(key):.1f}"

    return [
        f"{method} ({len(runs)} seeds)",
        percent("accuracy_before"),
        percent("accuracy_start"),
        percent("accuracy_bias_only"),
        ", ".join(f"{100 * run['accuracy_after']:.1f}" for run in runs),
        percent("accuracy_after"),
        f"{100 * (average('accuracy_after') - average('accuracy_before')):+.1f}",
        f"{average('queries'):,.0f}",
        f"{average('bytes_up_per_client_round'):,.0f}",
        f"{average('bytes_down_per_client_round'):,.0f}",
        f"{average('seconds'):.0f}",
    ]


def main(paths: list[str]) -> None:
    """Prints the table of these summary files."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        summary = json.loads(Path(path).read_text())
        runs[summary["method"]].append(summary)
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *(row(method, found) for method, found in runs.items())]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
