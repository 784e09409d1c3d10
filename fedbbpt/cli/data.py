"""`fedbbpt data`: who holds what under a job, as a table, as JSON, and drawn."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from fedbbpt.cli.federation import Data, JobFile, Seed, changed, shares
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out, show
from fedbbpt.data.partition import distance
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import read_job

_LEGEND = 20
"""Classes that a legend has room for."""
_NAMED = 20
"""Clients that an axis has room for."""


def data(
    job_file: JobFile,
    data: Data = "",
    seed: Seed = None,
    picture: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.svg", help="Draw it too: .svg, .png or .pdf.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show how a job's examples are shared out: each class at each client, and how unlike the clients are.

    Nothing is trained and no model is asked.
    """
    with err.status("reading the data"):
        splits = prepare(changed(read_job(job_file), data, seed))
    if picture is not None:
        draw(splits, picture)
    if json:
        show(report(splits) | _counts(splits), as_json=True)
        return
    out.print(shares(splits))
    show(report(splits), as_json=False)


def report(splits: Splits) -> dict[str, Any]:
    """Sizes, and how unlike the clients are."""
    counts = splits.histogram()
    return {
        "partition": splits.job.data.partition,
        "seed": splits.job.run.seed,
        "clients": len(counts),
        "examples": int(counts.sum()),
        "server_examples": len(splits.server),
        "dev_examples": sum(map(len, splits.dev)),
        "test_examples": len(splits.test),
        "examples_per_client": _range(counts.sum(axis=1)),
        "classes_per_client": _range((counts > 0).sum(axis=1)),
        "mean_distance": float(distance(counts).mean()),
    }


def draw(splits: Splits, path: Path) -> None:
    """A column for each client, its classes stacked. Raises InvalidInput where it cannot be drawn."""
    try:
        from matplotlib import colormaps, rc_context  # an extra, heavy to import
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("drawing needs matplotlib", where="--out", fix="pip install 'fedbbpt[plots]'") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise InvalidInput(f"{path} is no kind of picture", where="--out", fix="a name that ends in .svg, .png or .pdf")
    counts, labels = splits.histogram(), splits.job.task.labels
    colours = colormaps["tab10"] if len(labels) <= 10 else colormaps["turbo"].resampled(len(labels))
    edges, tops = np.arange(len(counts) + 1) - 0.5, counts.cumsum(axis=1).T
    # Labels are other people's: a dollar in them is no formula.
    with rc_context({"text.parse_math": False}):
        axes = figure.subplots()
        for index, (label, top) in enumerate(zip(labels, tops, strict=True)):
            axes.stairs(top, edges, baseline=top - counts[:, index], fill=True, color=colours(index), label=label)
        if len(counts) <= _NAMED:
            axes.set_xticks(range(len(counts)), splits.titles)
        axes.set_xlabel(splits.job.data.partition_column or "client")
        axes.set_ylabel("training examples")
        if len(labels) <= _LEGEND:
            figure.legend(loc="outside right upper", reverse=True)
        figure.savefig(path)


def _counts(splits: Splits) -> dict[str, Any]:
    """Examples of each class, in label order."""
    classes = len(splits.job.task.labels)
    return {
        "labels": splits.job.task.labels,
        "counts": dict(zip(splits.titles, splits.histogram().tolist(), strict=True)),
        "server_counts": np.bincount(splits.server.labels, minlength=classes).tolist(),
    }


def _range(values: npt.NDArray[np.int64]) -> dict[str, float]:
    return {"fewest": int(values.min()), "median": float(np.median(values)), "most": int(values.max())}
