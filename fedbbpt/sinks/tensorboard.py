"""The sink TensorBoard: event files in a folder. It needs neither torch nor TensorFlow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from fedbbpt.sinks import figures
from fedbbpt.sinks.sink import Begun
from fedbbpt.types import Report, RunEvent


class TensorBoard:
    """A `sink.Sink`: curves under `round/`, the summary under `summary/`, and settings and events as texts."""

    def __init__(self, folder: Path) -> None:
        """Writes to a folder of the run inside `folder`."""
        self._folder = folder
        self._writer: Any = None
        self._events, self._last = 0, 0

    def begin(self, run: Begun) -> None:
        # What an earlier process wrote of this run is read no more: its rounds are told again.
        folder = self._folder / f"{run.name}-{run.key}"
        self._writer = SummaryWriter(str(folder), purge_step=0, write_to_disk=True)
        rows = "".join(f"| {key} | `{json.dumps(value)}` |\n" for key, value in run.settings.items())
        self._writer.add_text("settings", f"| key | value |\n|---|---|\n{rows}", 0)

    def round(self, report: Report) -> None:
        for name, value in figures.of_report(report).items():
            self._writer.add_scalar(f"round/{name}", value, report.round)
        self._last = report.round
        self._writer.flush()

    def event(self, event: RunEvent) -> None:
        self._writer.add_text("events", figures.of_event(event), self._events, walltime=event.time)
        self._events += 1

    def end(self, summary: Mapping[str, Any]) -> None:
        for name, value in figures.of_summary(summary).items():
            self._writer.add_scalar(f"summary/{name}", value, self._last)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
