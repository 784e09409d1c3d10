"""The result of an evaluation: tables for people, and figures for --json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from fedbbpt.cli.terminal.run_view import decimals
from fedbbpt.federation.evaluation import Measured
from fedbbpt.tasks.metrics import Confusion, by_class, macro_f1

_CLASSES_SHOWN = 12
"""Most classes whose confusion matrix fits a terminal."""


def figures(measured: Measured, labels: Sequence[str]) -> dict[str, Any]:
    """Returns the figures of one measurement for --json."""
    found: dict[str, Any] = {
        "examples": measured.examples,
        "accuracy": measured.accuracy,
        "accuracy_interval_95": measured.interval,
        "loss": measured.loss,
        "macro_f1": None,
    }
    if measured.confusion is not None:
        classes = zip(labels, by_class(measured.confusion), strict=True)
        found["macro_f1"] = macro_f1(measured.confusion)
        found["classes"] = {label: asdict(metrics) for label, metrics in classes}
        found["confusion"] = {"labels": list(labels), "true_by_predicted": measured.confusion[:, :-1].tolist()}
        if measured.confusion[:, -1].any():
            found["confusion"]["without_prediction"] = measured.confusion[:, -1].tolist()
    return found


def metrics_table(found: Mapping[str, Measured], labels: Sequence[str]) -> Table:
    """Returns the figures with a column for each condition, and precision, recall and F1 of each class."""
    table = Table(box=None, header_style="dim")
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    rows = list(found.values())
    table.add_row("examples", *(f"{one.examples:,}" for one in rows))
    table.add_row("accuracy", *(decimals(one.accuracy, 3) for one in rows))
    table.add_row("  95 % interval (Wilson)", *(_interval(one) for one in rows))
    table.add_row("macro-F1", *(decimals(macro_f1(c) if (c := one.confusion) is not None else None, 3) for one in rows))
    table.add_row("loss", *(decimals(one.loss, 3) for one in rows))
    if all(one.confusion is not None for one in rows):
        table.add_row("precision / recall / F1 by class", style="dim")
        columns = [by_class(one.confusion) for one in rows if one.confusion is not None]
        for label, *metrics in zip(labels, *columns, strict=True):
            cells = (" / ".join(decimals(n, 2) for n in (one.precision, one.recall, one.f1)) for one in metrics)
            table.add_row(f"  {label} ({metrics[0].examples})", *cells)
    return table


def confusion_table(counts: Confusion, labels: Sequence[str]) -> Table | str:
    """Returns the confusion matrix with a row for each true class and a column for each predicted one."""
    if len(labels) > _CLASSES_SHOWN:
        return f"The confusion matrix of {len(labels)} classes is in the output of --json."
    shown = len(labels) + bool(counts[:, -1].any())
    table = Table(box=None, header_style="dim")
    table.add_column("")
    for number in range(1, shown + 1):
        table.add_column(str(number) if number <= len(labels) else "none", justify="right")
    for number, (label, row) in enumerate(zip(labels, counts, strict=True), start=1):
        cells = (str(cell) if cell else "·" for cell in row[:shown].tolist())
        table.add_row(f"{number} {label}", *cells)
    return table


def _interval(measured: Measured) -> str:
    if measured.interval is None:
        return "-"
    low, high = measured.interval
    return f"{low:.3f} to {high:.3f}"
