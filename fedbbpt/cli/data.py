"""`fedbbpt data`: shows how a job splits its examples over clients, as a table, as JSON, or as a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import JobChanges, with_bundles
from fedbbpt.cli.terminal.console import out, show, warned
from fedbbpt.cli.terminal.run_tables import shares
from fedbbpt.data.partition import distance
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.run_warnings import data_warnings
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.progress import progress
from fedbbpt.job.config import read_job

_LEGEND = 20
"""Most classes that a legend has room for."""
_NAMED = 20
"""Most clients that an axis has room for."""


@with_bundles
def data(
    job_file: options.JobFile,
    changes: JobChanges,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.svg",
            help="File for a picture of the split: .svg, .png or .pdf.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show how a job splits its examples: the classes of each client, and how much the clients differ.

    Nothing is trained, and no model is asked.

    Example: fedbbpt data job.toml --picture clients.svg
    """
    with progress("reading the data"):
        splits = prepare(changes.apply(read_job(job_file)))
    warnings = warned(data_warnings(splits))
    if picture is not None:
        draw(splits, picture)
    if json:
        show(report(splits) | _counts(splits) | {"warnings": list(map(asdict, warnings))}, as_json=True)
        return
    out.print(shares(splits))
    show(report(splits), as_json=False)


def report(splits: Splits) -> dict[str, Any]:
    """Returns the sizes of the split, and how much the clients differ."""
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
    """Draws a bar for each client with its classes stacked. Raises InvalidInput if the file cannot be drawn."""
    with needs_extra("plots", where="--picture"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4), layout="constrained")
    if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
        fix = "a name that ends in .svg, .png or .pdf"
        raise InvalidInput(f"unknown kind of picture: {path}", where="--picture", fix=fix)
    # Labels come from users, and a dollar sign in them does not start a formula.
    with rc_context({"text.parse_math": False}):
        _draw_bars(figure.subplots(), splits)
        if len(splits.job.task.labels) <= _LEGEND:
            figure.legend(loc="outside right upper", reverse=True)
        figure.savefig(path)


def _draw_bars(axes: Any, splits: Splits) -> None:
    from matplotlib import colormaps

    counts, labels = splits.histogram(), splits.job.task.labels
    colours = colormaps["tab10"] if len(labels) <= 10 else colormaps["turbo"].resampled(len(labels))
    edges, tops = np.arange(len(counts) + 1) - 0.5, counts.cumsum(axis=1).T
    for index, (label, top) in enumerate(zip(labels, tops, strict=True)):
        axes.stairs(top, edges, baseline=top - counts[:, index], fill=True, color=colours(index), label=label)
    if len(counts) <= _NAMED:
        axes.set_xticks(range(len(counts)), splits.titles)
    axes.set_xlabel(splits.job.data.partition_column or "client")
    axes.set_ylabel("training examples")


def _counts(splits: Splits) -> dict[str, Any]:
    """Returns the number of examples of each class, in label order."""
    classes = len(splits.job.task.labels)
    return {
        "labels": splits.job.task.labels,
        "counts": dict(zip(splits.titles, splits.histogram().tolist(), strict=True)),
        "server_counts": np.bincount(splits.server.labels, minlength=classes).tolist(),
    }


def _range(values: npt.NDArray[np.int64]) -> dict[str, float]:
    return {"fewest": int(values.min()), "median": float(np.median(values)), "most": int(values.max())}
