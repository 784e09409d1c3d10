"""What sinks show of reports, summaries and jobs: numbers and texts by their names in the run's own files."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedbbpt.types import Report, RunEvent


def of_report(report: Report) -> dict[str, float]:
    """Returns the numbers of a round by their keys in metrics.jsonl, without the round and without what is unknown."""
    return {key: float(value) for key, value in asdict(report).items() if key != "round" and value is not None}


def of_event(event: RunEvent) -> str:
    """Returns an event as a line for people, such as "round 3, late client-1: no answer of client-1"."""
    about = " ".join(part for part in (event.kind.value, event.client_id) if part)
    return f"round {event.round}, {about}" + (f": {event.text}" if event.text else "")


def of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of summary.json by their keys; dots separate those of nested tables."""
    numbers = (int, float)
    return {
        key: float(value)
        for key, value in flat(summary).items()
        if isinstance(value, numbers) and not isinstance(value, bool)
    }


def flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of nested tables by their keys, joined with dots."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": inner for name, inner in flat(value).items()}
        else:
            found[key] = value
    return found
