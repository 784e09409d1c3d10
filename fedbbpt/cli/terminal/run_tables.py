"""The two tables of a run on this machine: the clients' examples before it, and the results after it."""

import numpy as np
from rich.table import Table

from fedbbpt.cli.terminal.amounts import size
from fedbbpt.cli.terminal.run_view import decimals
from fedbbpt.federation.comparison import TITLES, Comparison
from fedbbpt.federation.evaluation import Gain
from fedbbpt.federation.run_folder import FinishedRun
from fedbbpt.federation.splits import Splits
from fedbbpt.report.figures import percent, percent_range, points, points_range

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


def accuracies(compared: Comparison) -> Table:
    """Returns the accuracy of the result and of its controls, with what the result gains over each of them."""
    table = Table(box=None, header_style="dim", caption_justify="left", caption_style="dim")
    table.caption = "gain: the result minus this line, on the same examples, in points"
    table.add_column(f"on {compared.tuned.examples:,} test examples")
    for name in ("accuracy", "95 % interval", "gain", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    gains = compared.gains
    for name, measured in compared.conditions.items():
        gain = gains.get(name)
        cells = (percent(measured.accuracy), percent_range(measured.interval))
        gained = ("", "") if gain is None else (points(gain.difference), points_range(gain.interval))
        style = "bold green" if measured is compared.tuned else ""
        table.add_row(TITLES.get(name, compared.title), *cells, *gained, style=style)
    return table


def results(finished: FinishedRun) -> Table:
    """Returns what the result does not beat, its loss, and what the run cost."""
    summary, compared = finished.summary(), finished.comparison
    table = Table(show_header=False, box=None)
    if better := _no_worse(compared):
        table.add_row("the result is no better than", ", ".join(better), style="yellow")
    elif unsure := _uncertain(compared):
        table.add_row("the lead may be chance over", ", ".join(unsure), style="yellow")
    table.add_row(
        "loss before and after", f"{decimals(compared.without.loss, 3)} -> {decimals(compared.tuned.loss, 3)}"
    )
    table.add_row("queries of the federation", f"{summary['queries']:,}")
    table.add_row("bytes up, per client and round", size(summary["bytes_up_per_client_round"]))
    table.add_row("bytes down, per client and round", size(summary["bytes_down_per_client_round"]))
    if stated := summary.get("privacy"):
        figures = f"epsilon {stated['epsilon']:.3g}, delta {stated['delta']:g}"
        table.add_row(f"privacy, for each {stated['level']}", figures)
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table


def gain_text(gain: Gain) -> str:
    """Formats a gain for people: points, and their 95 % interval."""
    return f"{points(gain.difference)} points (95 % interval {points_range(gain.interval)})"


def _no_worse(compared: Comparison) -> list[str]:
    """The controls that are as accurate as the result, or more so."""
    after = compared.tuned.accuracy
    return [
        name
        for name, control in compared.controls.items()
        if after is not None and control.accuracy is not None and control.accuracy >= after
    ]


def _uncertain(compared: Comparison) -> list[str]:
    """The controls whose lead may be chance: the 95 % interval of the result's gain over them holds 0."""
    gains = {name: compared.tuned.gain_over(control) for name, control in compared.controls.items()}
    return [name for name, gain in gains.items() if gain is not None and gain.interval[0] <= 0 <= gain.interval[1]]
