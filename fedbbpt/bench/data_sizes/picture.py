"""Draws test accuracy against the number of examples as an SVG file. The same records give the same bytes.

matplotlib, the extra `plots`, is imported only when something is drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from fedbbpt.bench.data_sizes.baselines import OFFSETS, ZERO_SHOT
from fedbbpt.bench.data_sizes.grid import DataGrid
from fedbbpt.bench.data_sizes.records import BEST_ALONE, Record
from fedbbpt.bench.data_sizes.report import methods, summary
from fedbbpt.bench.methods.plots import COLOURS, STROKES
from fedbbpt.bench.methods.report import title
from fedbbpt.bench.methods.rows import Learns
from fedbbpt.host.extras import needs_extra

COLOUR: dict[Learns, str] = {"alone": COLOURS[1], "together": COLOURS[0], "pooled": COLOURS[2]}

WIDTH: dict[Learns, float] = {"alone": 1.5, "together": 1.5, "pooled": 4.0}


def draw(grid: DataGrid, records: Sequence[Record], folder: Path) -> Path:
    """Draws TASK-data.svg with a panel for each split, and returns its path.

    The colour says whose examples a method learns from, and the stroke which method it is.

    Raises:
        InvalidInput: matplotlib is not installed.
    """
    with needs_extra("plots", where="--out"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    figure = Figure(figsize=(4.5 * len(grid.splits) + 2.5, 4), layout="constrained")
    panels = figure.subplots(1, len(grid.splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, grid.splits, strict=True):
        _draw_panel(axes, grid, records, split)
    panels[0].set_ylabel("test accuracy, %")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize="small")
    path = folder / f"{grid.task}-data.svg"
    # Ids with a fixed salt and no date, so that the same picture is the same file.
    with rc_context({"svg.hashsalt": "fedbbpt", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _draw_panel(axes: Any, grid: DataGrid, records: Sequence[Record], split: str) -> None:
    sizes = [mean(record.train_examples for record in records if record.shots == shots) for shots in grid.shots]
    searches = [name for name in methods(records) if name not in (ZERO_SHOT, OFFSETS, BEST_ALONE)]
    drawn: list[tuple[str, Learns, str]] = []
    for learns in ("pooled", "together"):  # a federation often finds what is pooled, so its narrower line is on top
        drawn += [(name, learns, STROKES[index % len(STROKES)]) for index, name in enumerate(searches)]
    drawn.append((BEST_ALONE, "alone", "-"))
    for name, learns, stroke in drawn:
        found = [summary(records, split, shots, name, learns) for shots in grid.shots]
        points = sorted((size, each) for size, each in zip(sizes, found, strict=True) if each is not None)
        if points:
            label = name if name == BEST_ALONE else f"{name}, {learns}"
            at, accuracy = [size for size, _ in points], [each.accuracy for _, each in points]
            error = np.array([each.error or 0.0 for _, each in points])
            style = {"color": COLOUR[learns], "linestyle": stroke, "linewidth": WIDTH[learns]}
            axes.plot(at, accuracy, label=label, marker="o", markersize=3, **style)
            axes.fill_between(at, accuracy - error, accuracy + error, color=COLOUR[learns], alpha=0.12, linewidth=0)
    without = [summary(records, split, shots, ZERO_SHOT, "together") for shots in grid.shots]
    height = mean(each.accuracy for each in without if each is not None)
    axes.axhline(height, color="0.45", linewidth=0.9, linestyle=(0, (1, 2)), label=ZERO_SHOT)
    axes.set_xscale("log")
    axes.set_xticks(sorted(sizes), [f"{size:,.0f}" for size in sorted(sizes)])
    axes.minorticks_off()
    axes.set_title(title(split))
    axes.set_xlabel("training examples of all members")
    axes.grid(alpha=0.3)
