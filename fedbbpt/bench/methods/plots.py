"""Draws accuracy against cost as small SVG files. The same records give the same bytes.

matplotlib, the extra `plots`, is imported only when something is drawn.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.bench.methods.grid import Grid
from fedbbpt.bench.methods.records import Record
from fedbbpt.bench.methods.report import Summary, summaries, title
from fedbbpt.host.extras import needs_extra

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which are distinct to people with any colour vision (https://jfly.uni-koeln.de/color/)."""
STROKES = ("-", "--", ":")
STYLES = [(colour, stroke) for stroke, colour in product(STROKES, COLOURS)]
"""A colour and a stroke for each method. Strokes differ when there are more methods than colours."""

AXES = {"queries": "queries, training and dev", "bytes": "bytes, up and down, all clients"}
"""The costs to plot, with their axis labels."""


def draw(grid: Grid, records: Sequence[Record], folder: Path) -> tuple[Path, ...]:
    """Draws TASK-queries.svg and TASK-bytes.svg, and returns their paths. Without a search there is nothing to draw.

    Raises InvalidInput if matplotlib is not installed.
    """
    found = summaries(grid, records)
    searches = [summary for summary in found if any(record.end.round for record in summary.records)]
    if not searches:
        return ()
    with needs_extra("plots", where="--out"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    controls = [summary for summary in found if summary not in searches]
    written = []
    for cost in AXES:
        shown = [s for s in searches if cost == "queries" or any(record.answers for record in s.records)]
        if not shown:
            continue
        figure = Figure(figsize=(4.5 * len(grid.splits) + 2.5, 4), layout="constrained")
        _draw_panels(figure, grid, cost, shown, controls)
        path = folder / f"{grid.task}-{cost}.svg"
        # Ids with a fixed salt and no date, so that the same picture is the same file.
        with rc_context({"svg.hashsalt": "fedbbpt", "svg.fonttype": "none"}):
            figure.savefig(path, metadata={"Date": None})
        written.append(path)
    return tuple(written)


def _draw_panels(figure: Any, grid: Grid, cost: str, shown: Sequence[Summary], controls: Sequence[Summary]) -> None:
    panels = figure.subplots(1, len(grid.splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, grid.splits, strict=True):
        for index, summary in enumerate(s for s in controls if s.split == split):
            _draw_control(axes, summary, place=0.99 - 0.25 * (index % 4))  # labels of close lines stand side by side
        for summary in (s for s in shown if s.split == split):
            _draw_search(axes, summary, cost, STYLES[grid.names.index(summary.method) % len(STYLES)])
        axes.set_title(title(split))
        axes.set_xlabel(AXES[cost])
        axes.grid(alpha=0.3)
        if cost == "bytes":
            axes.set_xscale("log")
    panels[0].set_ylabel("test accuracy of the best prompt by dev data, %")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines() if line.get_label()[0] != "_"}
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize="small")


def _draw_search(axes: Any, summary: Summary, cost: str, style: tuple[str, str]) -> None:
    """Draws the mean over seeds, and a band from the lowest to the highest seed.

    The curve has steps, since a prompt counts from the cost at which it was known. Costs differ a little between seeds.
    """
    colour, stroke = style
    costs = [np.array([getattr(point, cost) for point in record.curve], float) for record in summary.records]
    # The curve begins where every seed has a prompt; on the logarithmic axis, where something has been sent.
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


def _draw_control(axes: Any, summary: Summary, place: float) -> None:
    """Draws a horizontal line with the control's name on it, as a control costs almost nothing."""
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
