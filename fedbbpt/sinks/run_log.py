"""The log of a run in all its sinks: what has happened is told to each of them, whoever follows the run."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedbbpt.host.files import atomic_write
from fedbbpt.job.config import Job
from fedbbpt.sinks.delivery import Delivery
from fedbbpt.sinks.figures import flat
from fedbbpt.sinks.opening import sinks_of
from fedbbpt.sinks.sink import Begun, Sink
from fedbbpt.types import Report, RunEvent

KEY = "log.key"
"""The file by which sinks know a simulation again that continues in its folder."""


class RunLog:
    """Tells the sinks of a job what happens to its run. Without sinks it does nothing, and it never raises."""

    def __init__(self, job: Job, folder: Path, key: str = "") -> None:
        """Opens the sinks that the job's `[log]` names.

        Args:
            job: The job, with its task complete.
            folder: The run's folder.
            key: What sinks know the run by; empty: its id, which is random unless the run is simulated.

        Raises:
            InvalidInput: A sink needs a package that is not installed, or an account that is not set up.
        """
        self._job, self._key = job, key
        self._begun, self._rounds, self._event = False, 0, 0
        self._deliveries = [Delivery(opens, name) for name, opens in list(sinks_of(job.log, folder))]

    def __bool__(self) -> bool:
        """Returns whether there is a sink."""
        return bool(self._deliveries)

    def follow(
        self,
        run_id: str,
        reports: Callable[[int], Sequence[Report]],
        events: Callable[[int], Sequence[RunEvent]],
    ) -> None:
        """Tells what has happened since the last call.

        Args:
            run_id: The id of the run.
            reports: Returns the reports from a round on.
            events: Returns the events after the one of a number.
        """
        if self._deliveries:
            self.tell(run_id, reports(self._rounds), events(self._event))

    def tell(self, run_id: str, news: Sequence[Report], events: Sequence[RunEvent]) -> None:
        """Tells the reports of further rounds, and further events."""
        if not self._deliveries:
            return
        if not self._begun:
            self._begun = True
            settings = flat(self._job.model_dump(mode="json", exclude={"log"}))
            begun = Begun(self._key or run_id, self._job.run.name, run_id, settings)
            self._tell(lambda sink: sink.begin(begun))
        for report in news:
            self._tell(partial(_show_round, report))
            self._rounds = report.round + 1
        for event in events:
            self._tell(partial(_show_event, event))
            self._event = event.number

    def _tell(self, call: Callable[[Sink], None]) -> None:
        for delivery in self._deliveries:
            delivery.tell(call)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Tells the figures of the run, which has ended."""
        self._tell(lambda sink: sink.end(summary))

    def close(self) -> None:
        """Closes the sinks. Those that are slow get `delivery.CLOSE_SECONDS` each."""
        for delivery in self._deliveries:
            delivery.close()
        self._deliveries = []


def _show_round(report: Report, sink: Sink) -> None:
    sink.round(report)


def _show_event(event: RunEvent, sink: Sink) -> None:
    sink.event(event)


def kept_key(folder: Path) -> str:
    """Returns the key of the simulation in a folder, which is made if it is missing. Raises OSError."""
    path = folder / KEY
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        key = secrets.token_hex(4)
        atomic_write(path, key + "\n")
        return key
