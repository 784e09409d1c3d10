"""What the tests of sinks share: a sink that records, and the records of a run."""

import threading
from collections.abc import Mapping
from typing import Any

from fedbbpt.sinks.delivery import Delivery
from fedbbpt.sinks.sink import Begun
from fedbbpt.types import EventKind, Report, RunEvent

WAIT_SECONDS = 30.0

BEGUN = Begun("5eed5eed", "tiny", "tiny-1", {"run.seed": 7, "method.name": "fed-cma", "task.labels": ["a", "b"]})
REPORTS = (
    Report(0, 3, 1.5, 0.25, 1.4, 60, 0.5, 1000, 2000, 8),
    Report(1, 3, 1.25, 0.5, None, 120, 0.25, 1100, 2100, 8),
    Report(2, 2, None, None, 1.1, 170, 0.75, None, None, 0),
)
"""The second round has no training loss, and the third measured nothing."""
EVENT = RunEvent(3, 1_790_000_000.0, EventKind.TROUBLE, "c", 2, "the PTM is away")
EVENT_TEXT = "round 2, trouble c: the PTM is away"
SUMMARY: Mapping[str, Any] = {"state": "finished", "rounds": 2, "accuracy_after": 0.75, "privacy": {"epsilon": 2.0}}


class Recording:
    """A `Sink` that notes down its calls, after the first ones failed."""

    def __init__(self, failures: int = 0) -> None:
        self._failures = failures
        self.calls: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def _record(self, name: str, value: Any) -> None:
        if self._failures:
            self._failures -= 1
            raise OSError("the tool is away")
        with self._changed:
            self.calls.append((name, value))
            self._changed.notify_all()

    def begin(self, run: Begun) -> None:
        self._record("begin", run)

    def round(self, report: Report) -> None:
        self._record("round", report)

    def event(self, event: RunEvent) -> None:
        self._record("event", event)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._record("end", summary)

    def close(self) -> None:
        self._record("close", None)

    def closed_after(self, calls: int, delivery: Delivery) -> bool:
        """Waits for so many calls, closes the delivery, and returns whether the sink was closed after exactly these."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.calls) >= calls, WAIT_SECONDS)
        delivery.close()
        return len(self.calls) == calls + 1 and self.calls[-1] == ("close", None)
