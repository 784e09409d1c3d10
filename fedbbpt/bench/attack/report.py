"""Writes what attacks cost with each rule as a Markdown page and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from textwrap import fill

from fedbbpt.bench.attack.grid import HONEST, AttackGrid, Record
from fedbbpt.bench.page import circumstances, table_line
from fedbbpt.host.json_text import json_text

LINE_CHARACTERS = 120
CAPTION = """\
Test accuracy in percent of the prompt that a run ends with, by the rule in `cohort.robust`, which is told the number of
liars. Liars pursue the opposite of the search, and stay within what the coordinator cannot recognise:

- *sign-flip*: losses and dev measurements are reversed, so that the worst candidate has the loss of the best.
- *scaled*: the same, times 1,000.
- *label-flip*: the labels of all examples are moved to the next class, train and dev.
- *free-rider*: nothing is computed; losses are drawn by chance, and the dev measurement is that of guessing.
"""


def columns(grid: AttackGrid) -> tuple[str, ...]:
    """Returns the titles of the table's columns."""
    return ("attack", "liars", *grid.rules)


def rows(grid: AttackGrid, records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Returns the table, a row for each attack and number of liars."""
    cases = [(HONEST, 0), *((attack, liars) for attack in grid.attacks for liars in grid.liars)]
    return [
        (attack, f"{liars} of {grid.clients}", *(_accuracy(records, attack, liars, rule) for rule in grid.rules))
        for attack, liars in cases
    ]


def _accuracy(records: Sequence[Record], attack: str, liars: int, rule: str) -> str:
    found = [each.accuracy for each in records if (each.attack, each.liars, each.rule) == (attack, liars, rule)]
    return f"{100 * mean(found):.1f}" if found else ""


def write(grid: AttackGrid, records: Sequence[Record], command: str, folder: Path) -> tuple[Path, Path]:
    """Writes attacks.md and attacks.json into the folder, and returns their paths."""
    page, data = folder / "attacks.md", folder / "attacks.json"
    found = circumstances(command, "torch", "transformers")
    model = Path(grid.ptm.model).name if Path(grid.ptm.model).is_dir() else grid.ptm.model
    table = [columns(grid), ("---", *["--:"] * (1 + len(grid.rules))), *rows(grid, records)]
    setting = (
        f"fed-cma by ranks with {model} on the demo's questions; {grid.clients} clients with equal mixes of classes, "
        f"{grid.shots} training examples of each class; {grid.rounds} rounds; {records[0].test_examples} test "
        f"examples; seeds {', '.join(map(str, grid.seeds))}."
    )
    lines = [
        "# What clients that lie cost",
        "",
        fill(setting, LINE_CHARACTERS, break_on_hyphens=False),
        "",
        *("```console", f"$ {command}", "```", ""),
        CAPTION.strip(),
        "",
        *map(table_line, table),
        "",
        f"{found['date']}, {found['machine']}; {found['software']}.",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = {**found, "cells": [record.model_dump(mode="json") for record in records]}
    data.write_text(json_text(kept, indent=1) + "\n", encoding="utf-8")
    return page, data
