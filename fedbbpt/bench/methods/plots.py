"""Accuracy against what it cost: small SVG files, the same bytes for the same records.

Needs matplotlib, the extra `plots`, which is imported when something is drawn.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.bench.methods.grid import Grid
from fedbbpt.bench.methods.records import Record
from fedbbpt.bench.methods.report import Summary, summaries, title
from fedbbpt.errors import InvalidInput

# Okabe and Ito's colours, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/).
# Where there are more methods than colours, the strokes differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STROKES = ("-", "--", ":")
STYLES = [(colour, stroke) for stroke, colour in product(STROKES, COLOURS)]

AXES = {"queries": "queries, training and dev", "bytes": "bytes, up and down, all clients"}


def draw(grid: Grid, records: Sequence[Record], folder: Path) -> tuple[Path, ...]:
    """TASK-queries.svg and TASK-bytes.svg; without methods that search there is nothing to draw.

    Raises InvalidInput where matplotlib is missing.
    """
    found = [summary for summary in summaries(grid, records) if any(record.end.round for record in summary.records)]
    if not found:
        return ()
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("drawing needs matplotlib", where="--out", fix="pip install 'fedbbpt[plots]'") from None
    flat = [summary for summary in summaries(grid, records) if summary not in found]
    written = []
    for cost, label in AXES.items():
        shown = [s for s in found if cost == "queries" or any(record.answers for record in s.records)]
        if not shown:
            continue
        figure = Figure(figsize=(4.5 * len(grid.splits) + 2.5, 4), layout="constrained")
        panels = figure.subplots(1, len(grid.splits), sharey=True, squeeze=False)[0]
        for axes, split in zip(panels, grid.splits, strict=True):
            for index, summary in enumerate(s for s in flat if s.split == split):
                _level(axes, summary, place=0.99 - 0.25 * (index % 4))  # side by side where they lie on each other
            for summary in (s for s in shown if s.split == split):
                _line(axes, summary, cost, STYLES[grid.names.index(summary.method) % len(STYLES)])
            axes.set_title(title(split))
            axes.set_xlabel(label)
            axes.grid(alpha=0.3)
            if cost == "bytes":
                axes.set_xscale("log")
        panels[0].set_ylabel("test accuracy of the best prompt by dev data, %")
        lines = {line.get_label(): line for axes in panels for line in axes.get_lines() if line.get_label()[0] != "_"}
        figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize="small")
        path = folder / f"{grid.task}-{cost}.svg"
        # Names of parts from a fixed salt and no date: the same picture is the same file.
        with rc_context({"svg.hashsalt": "fedbbpt", "svg.fonttype": "none"}):
            figure.savefig(path, metadata={"Date": None})
        written.append(path)
    return tuple(written)


def _line(axes: Any, summary: Summary, cost: str, style: tuple[str, str]) -> None:
    """The mean over seeds, and the range between the lowest and the highest.

    A prompt counts from where it was paid for, hence steps; the costs of rounds differ a little from seed to seed.
    """
    colour, stroke = style
    costs = [np.array([getattr(point, cost) for point in record.curve], float) for record in summary.records]
    # From where every seed has a prompt; on the logarithmic axis, from where something has travelled.
    first = 1 if cost == "bytes" else 0
    start = max(each[min(first, len(each) - 1)] for each in costs)
    at = np.unique(np.concatenate(costs))
    at = at[at >= start]
    values = np.stack(
        [
            100 * np.array([point.best for point in record.curve])[np.searchsorted(cost_, at, side="right") - 1]
            for record, cost_ in zip(summary.records, costs, strict=True)
        ]
    )
    axes.plot(at, values.mean(axis=0), drawstyle="steps-post", color=colour, linestyle=stroke, label=summary.method)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(at, low, high, step="post", color=colour, alpha=0.12, linewidth=0)


def _level(axes: Any, summary: Summary, place: float) -> None:
    """A control, which costs next to nothing: a line across, with its name on it."""
    height = 100 * float(np.mean([record.end.best for record in summary.records]))
    axes.axhline(height, color="0.45", linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        summary.method,
        (place, height),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize="x-small",
        color="0.35",
    )
