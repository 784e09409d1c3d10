"""A finished run as Python and notebooks show it."""

from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbbpt.federation import run_folder
from fedbbpt.federation.comparison import TITLES
from fedbbpt.host.extras import needs_extra
from fedbbpt.report.page import fragment, page
from fedbbpt.report.run_data import RunData
from fedbbpt.tasks.intervals import share_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class FinishedRun(run_folder.FinishedRun):
    """A finished run and the measurements of its prompt on test examples. A notebook shows it with its curves."""

    @staticmethod
    def of(run: run_folder.FinishedRun) -> "FinishedRun":
        """Returns the same run."""
        return FinishedRun(**{field.name: getattr(run, field.name) for field in fields(run)})

    def _repr_html_(self) -> str:
        return fragment(RunData.of_finished(self))

    def report(self, path: str | PathLike[str]) -> None:
        """Writes the page that `fedbbpt report` writes, without the texts of wrong answers."""
        Path(path).write_text(page(RunData.of_finished(self)), encoding="utf-8")

    def plot(self) -> "Figure":
        """Returns a figure of matplotlib: the learning curve, and the result next to its controls with 95 % intervals.

        Raises:
            InvalidInput: matplotlib is not installed; `pip install 'fedbbpt[plots]'`.
        """
        with needs_extra("plots", where="plot"):
            from matplotlib.figure import Figure
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        self._plot_curve(left)
        self._plot_conditions(right)
        return figure

    def _plot_curve(self, axes: Any) -> None:
        known = [report for report in self.reports if report.dev_accuracy is not None]
        measured = [report for report in self.reports if report.dev_loss is not None]
        axes.set_xlabel("round")
        if known:
            values = [100 * (report.dev_accuracy or 0.0) for report in known]
            intervals = (share_interval(report.dev_accuracy, report.dev_examples) for report in known)
            bounds = [interval for interval in intervals if interval is not None]
            rounds = [report.round for report in known]
            axes.plot(rounds, values, marker=".")
            if len(bounds) == len(known):
                axes.fill_between(
                    rounds, *zip(*((100 * low, 100 * high) for low, high in bounds), strict=True), alpha=0.15
                )
            axes.set_ylabel("accuracy on dev examples, %")
        else:
            axes.plot([one.round for one in measured], [one.dev_loss for one in measured], marker=".")
            axes.set_ylabel("loss on dev examples")
        axes.axvline(self.result.measured.round, linestyle="--", linewidth=1, color="green")
        axes.set_title(f"round {self.result.measured.round} is the result", fontsize=10)

    def _plot_conditions(self, axes: Any) -> None:
        compared = self.comparison
        shown = {name: one for name, one in compared.conditions.items() if one.interval is not None}
        for place, (name, one) in enumerate(reversed(shown.items())):
            low, high = one.interval or (0.0, 0.0)
            color = "green" if name == "result" else "gray"
            axes.plot([100 * low, 100 * high], [place, place], color=color, linewidth=3, alpha=0.5)
            axes.plot(100 * (one.accuracy or 0.0), place, marker="o", color=color)
        names = [TITLES.get(name, compared.title) for name in reversed(shown)]
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(f"accuracy on {compared.tuned.examples:,} test examples, %, with 95 % intervals")
