"""The sink Weights & Biases, online or offline."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Nothing about failures of this process goes to the authors of the package.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from fedbbpt.sinks import figures
from fedbbpt.sinks.sink import Begun
from fedbbpt.types import Report, RunEvent


class Wandb:
    """A `sink.Sink`: the job as the config, a step for each round, the summary as the summary, events as a table."""

    def __init__(self, project: str, folder: Path, *, offline: bool) -> None:
        """
        Args:
            project: The project of the run.
            folder: The run's folder, in which W&B has its folder `wandb`.
            offline: Whether nothing is sent.
        """
        self._project, self._folder, self._offline = project, folder, offline
        self._run: Any = None
        self._events: list[str] = []

    def begin(self, run: Begun) -> None:
        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=30,
            # What this machine is and has installed concerns nobody who looks at the run.
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self._run = wandb.init(
            project=self._project,
            id=run.key,
            name=run.name,
            config=dict(run.settings),
            dir=str(self._folder),
            mode="offline" if self._offline else "online",
            resume="allow",
            settings=settings,
        )

    def round(self, report: Report) -> None:
        # Steps that a continued run has already are ignored by the server.
        self._run.log(figures.of_report(report), step=report.round)

    def event(self, event: RunEvent) -> None:
        self._events.append(figures.of_event(event))
        self._run.summary["events"] = self._events[-100:]

    def end(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update({f"summary/{key}": value for key, value in figures.of_summary(summary).items()})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
