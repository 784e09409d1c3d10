"""The interface of all sinks, and what they are told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fedbbpt.types import Report, RunEvent


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun, or that continues in another process."""

    key: str
    """Identifies the run. A sink that knows it continues what it has."""
    name: str
    """The run's name in its job."""
    run_id: str
    settings: Mapping[str, Any]
    """The keys of the job and their values, such as `run.seed`."""


class Sink(Protocol):
    """A tool that shows runs.

    All calls come from one thread, `begin` first. They may block, and raise anything: `delivery.Delivery` keeps both
    from the run, and repeats a call that failed. What a sink is told twice, it shows once or with equal values.
    """

    def begin(self, run: Begun) -> None:
        """Shows the run and its settings."""
        ...

    def round(self, report: Report) -> None:
        """Shows a closed round. A process that continues a run tells the earlier rounds again."""
        ...

    def event(self, event: RunEvent) -> None:
        """Shows an event."""
        ...

    def end(self, summary: Mapping[str, Any]) -> None:
        """Shows the figures of a run that has ended: those of summary.json."""
        ...

    def close(self) -> None:
        """Writes what is held back. The run may have ended, or may continue in another process."""
        ...
