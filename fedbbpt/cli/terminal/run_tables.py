"""The two tables of a run on this machine: the clients' examples before it, and the results after it."""

from typing import TypeAlias

import numpy as np
from rich.table import Table

from fedbbpt.cli.terminal.run_view import decimals, size
from fedbbpt.federation.comparison import Comparison
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.run_folder import FinishedRun
from fedbbpt.federation.splits import Splits

_CLIENTS_SHOWN = 10


def shares(splits: Splits) -> Table:
    """Returns the number of training examples, classes down and clients across; beyond ten clients as one sum."""
    counts, labels = splits.histogram(), splits.job.task.labels
    columns = list(zip(splits.titles, counts, strict=True))[:_CLIENTS_SHOWN]
    if len(counts) > _CLIENTS_SHOWN:
        columns.append((f"{len(counts) - _CLIENTS_SHOWN} others", counts[_CLIENTS_SHOWN:].sum(axis=0)))
    if len(splits.server):
        columns.append(("server", np.bincount(splits.server.labels, minlength=len(labels))))
    table = Table(box=None, header_style="dim")
    table.add_column("training examples of client")
    for name, _ in columns:
        table.add_column(name, justify="right")
    for index, label in enumerate(labels):
        table.add_row(label, *(str(column[index]) if column[index] else "·" for _, column in columns))
    return table


def results(finished: FinishedRun) -> Table:
    """Returns accuracy and loss on the test examples next to the controls, and what the run cost."""
    summary, compared = finished.summary(), finished.comparison
    table = Table(title="on the test examples", title_justify="left", show_header=False, box=None)
    before, after = compared.without, compared.tuned
    read_out = compared.readout is not None
    for name, value in _with_readout(compared) if read_out else _without_readout(compared):
        accuracy = None if value is None or value.accuracy is None else 100 * value.accuracy
        gain = _gain(before, value) if read_out and value is not before else ""
        style = "bold green" if value is after else ""
        table.add_row(name, decimals(accuracy, 1, " %"), gain, style=style)
    if not read_out and (gain := _gain(before, after)):
        table.add_row("gained by tuning", gain)
    if better := _no_worse(compared):
        table.add_row("the result is no better than", ", ".join(better), style="yellow")
    table.add_row("loss before and after", f"{decimals(before.loss, 3)} -> {decimals(after.loss, 3)}")
    table.add_row("queries of the federation", f"{summary['queries']:,}")
    table.add_row("bytes up, per client and round", size(summary["bytes_up_per_client_round"]))
    table.add_row("bytes down, per client and round", size(summary["bytes_down_per_client_round"]))
    if stated := summary.get("privacy"):
        figures = f"epsilon {stated['epsilon']:.3g}, delta {stated['delta']:g}"
        table.add_row(f"privacy, for each {stated['level']}", figures)
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table


Step: TypeAlias = tuple[str, Measured | None]


def _without_readout(compared: Comparison) -> tuple[Step, ...]:
    return (
        ("accuracy before tuning, no prompt", compared.without),
        ("accuracy of the prompt that the search began with", compared.start),
        ("accuracy with one offset per class and no prompt", compared.offsets),
        ("accuracy after tuning", compared.tuned),
    )


def _with_readout(compared: Comparison) -> tuple[Step, ...]:
    plain: tuple[Step, ...] = (
        ("accuracy with no prompt", compared.without),
        ("with one offset per class and no prompt", compared.offsets),
    )
    if compared.prompt is None:
        together = ("with a readout fitted in one place", compared.readout)
        return (*plain, together, ("with the federation's readout", compared.tuned))
    return (
        *plain,
        ("with the prompt that the search began with", compared.start),
        ("with the tuned prompt and offsets", compared.prompt),
        ("with a readout and no prompt", compared.readout),
        ("with the tuned prompt and a readout", compared.tuned),
    )


def _gain(before: Measured, after: Measured | None) -> str:
    if after is None or before.accuracy is None or after.accuracy is None:
        return ""
    return f"{100 * (after.accuracy - before.accuracy):+.1f} points"


def _no_worse(compared: Comparison) -> list[str]:
    """The controls that are as accurate as the result, or more so."""
    after = compared.tuned.accuracy
    return [
        name
        for name, control in compared.controls.items()
        if after is not None and control.accuracy is not None and control.accuracy >= after
    ]
