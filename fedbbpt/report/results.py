"""The parts of the page about the result: headline, controls, learning curve, confusion matrix, wrong answers."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from fedbbpt.federation.comparison import TITLES
from fedbbpt.federation.run_folder import ACCURACIES
from fedbbpt.report.charts import Curve, Point, interval_bar, legend, line_chart
from fedbbpt.report.figures import decimal, percent, percent_range, points, points_range, short
from fedbbpt.report.html import Html, element, join
from fedbbpt.report.run_data import RunData
from fedbbpt.report.tables import table
from fedbbpt.tasks.intervals import share_interval
from fedbbpt.tasks.metrics import Confusion, by_class, confusion
from fedbbpt.types import Report

MOST_CLASSES = 40
"""Most classes whose confusion matrix fits the page."""
MOST_ERRORS = 100
"""Most wrong examples on the page."""


def headline(run: RunData) -> Html:
    """Returns the result in three figures."""
    summary = run.summary
    tiles: list[Html] = []
    if summary.get("accuracy_after") is not None:
        interval = summary["intervals_95"]["result"]
        tiles.append(
            _tile(
                percent(summary["accuracy_after"]),
                f"of {summary['test_examples']:,} test examples right",
                f"95 %: {percent_range(interval)}",
            )
        )
        gains = summary["gains"]
        for name in ("no_prompt", "offsets", "readout"):
            if gain := gains.get(name):
                sure = "" if gain["interval_95"][0] > 0 else "; may be chance"
                said = f"95 %: {points_range(gain['interval_95'])}{sure}"
                tiles.append(_tile(points(gain["difference"]), f"points over {TITLES[name]}", said))
    else:
        accuracy = summary.get("dev_accuracy")
        tiles.append(_tile(percent(accuracy), "of the clients' dev examples right", "they also chose the round"))
    return element("div", *tiles[:4], class_="tiles")


def _tile(figure: str, name: str, said: str) -> Html:
    return element(
        "div",
        element("div", figure, class_="figure"),
        element("div", name),
        element("div", said, class_="muted"),
        class_="tile",
    )


def controls(run: RunData) -> Html:
    """Returns the accuracy of the result and its controls, with intervals and gains."""
    summary = run.summary
    intervals = {name: found for name, found in summary.get("intervals_95", {}).items() if found is not None}
    if not intervals:
        why = "This PTM returns losses only, so no accuracy is known."
        if not summary.get("tested"):
            why = "The coordinator of a run has no test examples. The command evaluate measures the prompt on yours."
        return element("p", why, class_="muted")
    low = min(found[0] for found in intervals.values())
    high = max(found[1] for found in intervals.values())
    rows = []
    for name, interval in intervals.items():
        accuracy, gain, result = summary[ACCURACIES[name]], summary["gains"].get(name), name == "result"
        title = _result_title(run) if result else TITLES[name]
        bar = interval_bar(accuracy, interval, low, high, style="good" if result else "plain")
        won = ["", ""] if gain is None else [points(gain["difference"]), points_range(gain["interval_95"])]
        cells = [title, percent(accuracy), bar, percent_range(interval), *won]
        rows.append((cells, "best" if result else ""))
    head = ["", "accuracy", "", "95 % interval", "result's gain", "95 % interval"]
    said = (
        f"On the same {summary['test_examples']:,} test examples. Gains are in points; their intervals come from the "
        "examples on which both differ (Tango's score method), those of accuracies are Wilson's. They speak of these "
        "examples: another seed or other clients may change the result by more."
    )
    return join([table(head, rows, left=(0, 2)), element("p", said, class_="muted")])


def _result_title(run: RunData) -> str:
    if run.summary.get("accuracy_readout_only") is None:
        return "tuned prompt"
    return "the federation's readout" if run.summary.get("accuracy_start") is None else "tuned prompt and readout"


def curves(run: RunData) -> Html:
    """Returns the learning curves: accuracy with its interval, and losses, by round and by queries."""
    asked = dict(zip((one.round for one in run.reports), accumulate(one.queries for one in run.reports), strict=True))
    best = run.summary.get("best_round")

    def below(round_: float) -> str:
        return short(asked[int(round_)]) if int(round_) in asked else ""

    accuracy = Curve("accuracy on dev examples", "accent", list(_accuracies(run.reports)))
    losses = [
        Curve("loss on dev examples", "accent", list(_losses(run.reports, "dev_loss"))),
        Curve("loss of the search on training examples", "second", list(_losses(run.reports, "train_loss"))),
    ]
    parts: list[Html] = []
    if accuracy.points:
        label = "Accuracy on the clients' dev examples by round, with its 95 % interval"
        parts += [
            element("h3", "Accuracy on the clients' dev examples"),
            line_chart(
                [accuracy],
                label=label,
                format_y=lambda y: f"{100 * y:.0f} %",
                below=below,
                marked=best,
                marked_text=f"round {best} is the result",
            ),
        ]
    parts += [
        element("h3", "Loss"),
        line_chart(losses, label="Losses by round", format_y=lambda y: f"{y:.3g}", below=below, marked=best),
        legend(losses),
    ]
    said = (
        "Under the rounds: the queries of all clients until then. The band is the 95 % interval of an accuracy on so "
        "many dev examples. Dev examples chose the round, so the curve flatters the result a little; the test examples "
        "above do not."
    )
    return join([*parts, element("p", said, class_="muted")])


def _accuracies(reports: Sequence[Report]) -> Iterator[Point]:
    for report in reports:
        if report.dev_accuracy is None:
            continue
        interval = share_interval(report.dev_accuracy, report.dev_examples)
        said = f"round {report.round}: {percent(report.dev_accuracy)}"
        if interval is not None:
            said += f" ({percent_range(interval)}, {report.dev_examples:,} dev examples)"
        yield Point(report.round, report.dev_accuracy, said, *(interval or (None, None)))


def _losses(reports: Sequence[Report], name: str) -> Iterator[Point]:
    for report in reports:
        value = getattr(report, name)
        if value is not None and np.isfinite(value):
            yield Point(report.round, value, f"round {report.round}: {decimal(value, 4)}")


def confusions(run: RunData) -> Html:
    """Returns the confusion matrix of the result on the test examples, and figures for each class."""
    if not run.answers:
        return element("p", "The run has left no answers to test examples.", class_="muted")
    labels = list(run.labels)
    place = {label: index for index, label in enumerate(labels)}
    true = np.array([place[str(row["label"])] for row in run.answers], np.int64)
    found = np.array([-1 if row["result"] is None else place[str(row["result"])] for row in run.answers], np.int64)
    counts = confusion(true, found, len(labels))
    parts = [_matrix(counts, labels)] if len(labels) <= MOST_CLASSES else []
    rows = [
        ([label, f"{one.examples:,}", percent(one.precision), percent(one.recall), percent(one.f1)], "")
        for label, one in zip(labels, by_class(counts), strict=True)
    ]
    head = ["class", "examples", "precision", "recall", "F1"]
    return join([*parts, element("h3", "By class"), table(head, rows, left=(0,))])


def _matrix(counts: Confusion, labels: list[str]) -> Html:
    """Rows are true classes, columns predicted ones; a cell is the darker the larger its share of the row."""
    unanswered = bool(counts[:, -1].any())
    head = [element("th", "true \\ predicted", class_="left")]
    head += [element("th", str(index + 1), title=label) for index, label in enumerate(labels)]
    head += [element("th", "none")] * unanswered
    rows = [element("tr", *head)]
    for index, (label, row) in enumerate(zip(labels, counts, strict=True)):
        cells = [element("th", f"{index + 1} {label}", class_="left", scope="row")]
        for column, count in enumerate(row[: len(labels) + unanswered].tolist()):
            share = count / max(1, int(row.sum()))
            tone = "good" if column == index else "bad"
            said = f"{count} of {label} predicted as {labels[column] if column < len(labels) else 'nothing'}"
            style = f"background: color-mix(in srgb, var(--{tone}) {round(85 * share)}%, transparent)"
            cells.append(element("td", str(count) if count else "·", style=style, title=said, class_="cell"))
        rows.append(element("tr", *cells))
    return element("div", element("table", *rows, class_="matrix"), class_="scroll")


def errors(run: RunData) -> Html:
    """Returns the test examples that the result answers wrong, with their texts if the data is at hand."""
    if not run.answers:
        return element("p", "The run has left no answers to test examples.", class_="muted")
    wrong = [place for place, row in enumerate(run.answers) if row["result"] != row["label"]]
    repaired = sum(row["no_prompt"] != row["label"] == row["result"] for row in run.answers)
    broken = sum(row["no_prompt"] == row["label"] != row["result"] for row in run.answers)
    said = (
        f"{len(wrong):,} of {len(run.answers):,} are wrong. Tuning has corrected {repaired:,} answers that were wrong "
        f"with no prompt, and spoiled {broken:,} that were right."
    )
    parts = [element("p", said)]
    if not run.inputs:
        return join([*parts, element("p", f"Their texts are not shown: {run.inputs_missing}.", class_="muted")])
    parts.append(element("p", "These are your own texts: think before you pass this page on.", class_="warning"))
    rows = []
    for place in wrong[:MOST_ERRORS]:
        row = run.answers[place]
        before = "right" if row["no_prompt"] == row["label"] else row["no_prompt"]
        text = element("div", run.inputs[place], class_="input")
        rows.append(([text, row["label"], row["result"] or "nothing", before or "nothing"], ""))
    parts.append(table(["text", "label", "answer", "answer with no prompt"], rows, left=(0, 1, 2, 3)))
    if len(wrong) > MOST_ERRORS:
        parts.append(element("p", f"The first {MOST_ERRORS} are shown.", class_="muted"))
    return join(parts)
