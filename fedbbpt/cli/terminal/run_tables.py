"""The two tables of a run on this machine: the clients' examples before it, and the results after it."""

import numpy as np
from rich.table import Table

from fedbbpt.cli.terminal.run_view import decimals, size
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
    rows = (
        ("accuracy before tuning, no prompt", compared.without),
        ("accuracy of the prompt that the search began with", compared.start),
        ("accuracy with one offset per class and no prompt", compared.offsets),
        ("accuracy after tuning", compared.tuned),
    )
    for name, value in rows:
        style = "bold green" if value is compared.tuned else ""
        accuracy = None if value is None or value.accuracy is None else 100 * value.accuracy
        table.add_row(name, decimals(accuracy, 1, " %"), style=style)
    before, after = compared.without, compared.tuned
    if before.accuracy is not None and after.accuracy is not None:
        table.add_row("gained by tuning", f"{100 * (after.accuracy - before.accuracy):+.1f} points")
    table.add_row("loss before and after", f"{decimals(before.loss, 3)} -> {decimals(after.loss, 3)}")
    table.add_row("queries of the federation", f"{summary['queries']:,}")
    table.add_row("bytes up, per client and round", size(summary["bytes_up_per_client_round"]))
    table.add_row("bytes down, per client and round", size(summary["bytes_down_per_client_round"]))
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table
