"""A run as the page shows it, in JSON: the same for a run that goes on and for one in a folder.

`static/js/state.js` reads these records.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fedbbpt.federation.run_folder import ACCURACIES
from fedbbpt.tasks.intervals import share_interval
from fedbbpt.types import FREE, MemberStatus, Price, Report, RunEvent, RunStatus

Record: TypeAlias = dict[str, Any]

SHOWN_MEMBERS = 200
"""The members that the page lists; it counts the others."""
CONTROLS = {
    "no_prompt": "no prompt",
    "start": "the start",
    "offsets": "offsets alone",
    "prompt": "the prompt alone",
    "readout": "the readout alone",
    "result": "the result",
}
"""The conditions of a summary's intervals, as the page names them."""


def round_records(reports: Iterable[Report], before: Record | None = None, price: Price = FREE) -> list[Record]:
    """Returns the reports of consecutive rounds, with 95 % intervals of the accuracies and with sums over the run.

    Args:
        reports: The reports.
        before: The record of the round before the first one, if there is one.
        price: What a query costs; money is left out if it is unknown.
    """
    records, last = list[Record](), before
    for report in reports:
        record: Record = dataclasses.asdict(report)
        record["interval_95"] = interval(report.dev_accuracy, report.dev_examples)
        for key in ("queries", "seconds", "bytes_up", "bytes_down"):
            earlier = 0 if last is None else last[f"total_{key}"]
            record[f"total_{key}"] = None if record[key] is None or earlier is None else earlier + record[key]
        if price.currency and not price.micros_per_thousand_tokens:
            record["total_money"] = record["total_queries"] * price.micros_per_query / 1e6
        records.append(record)
        last = record
    return records


def interval(accuracy: float | None, examples: int) -> list[float] | None:
    """Returns the 95 % interval of an accuracy, or None if it was not measured."""
    found = share_interval(accuracy, examples)
    return None if found is None else list(found)


def best_round(reports: Sequence[Report]) -> int | None:
    """Returns the round with the lowest dev loss, or None if none was measured."""
    measured = [report for report in reports if report.dev_loss is not None]
    return max(measured, key=lambda report: report.rank).round if measured else None


def status_record(status: RunStatus, price: Price = FREE) -> Record:
    """Returns a run's status without its rounds and members, but with the numbers of members in each condition."""
    members = [member for member in status.members if member.takes_part]
    privacy = status.privacy and {
        "level": status.privacy.budget.level,
        "epsilon": status.privacy.epsilon,
        "epsilon_limit": status.privacy.budget.epsilon,
        "delta": status.privacy.budget.delta,
    }
    return {
        "key": status.name,
        "name": status.name or status.run_id,
        "run_id": status.run_id,
        "method": status.method,
        "state": str(status.state),
        "round": status.round,
        "rounds": status.rounds,
        "clients": status.clients,
        "quorum": status.quorum,
        "round_since": status.round_since,
        "deadline_seconds": status.deadline_seconds,
        "queries": status.queries,
        "bytes_up": status.bytes_up,
        "bytes_down": status.bytes_down,
        "best_round": status.best and status.best.round,
        "privacy": privacy,
        "currency": price.currency,
        "members": {
            "all": len(members),
            "connected": sum(member.connected for member in members),
            "submitted": sum(member.submitted for member in members),
            "late": sum(bool(member.late_since) for member in members) + len(status.late),
            "trouble": sum(bool(member.trouble) for member in status.members),
        },
    }


def member_records(members: Collection[MemberStatus]) -> list[Record]:
    """Returns the members to list: first those in trouble, then late ones, then the others, by their names."""
    ranked = sorted(members, key=lambda one: (not one.trouble, not one.late_since, one.client_id))
    return [dataclasses.asdict(member) for member in ranked[:SHOWN_MEMBERS]]


def event_record(event: RunEvent, number: int) -> Record:
    """Returns an event under the page's own number: the coordinator's begin again when it is started again."""
    return {**dataclasses.asdict(event), "kind": str(event.kind), "number": number}


def control_records(summary: Mapping[str, Any]) -> list[Record]:
    """Returns the accuracies on test examples in a finished run's summary, with their 95 % intervals."""
    n, intervals = summary.get("test_examples", 0), summary.get("intervals_95") or {}
    return [
        {
            "key": key,
            "name": name,
            "accuracy": summary[ACCURACIES[key]],
            "interval_95": intervals.get(key) or interval(summary[ACCURACIES[key]], n),
            "examples": n,
            "gain": (summary.get("gains") or {}).get(key),
        }
        for key, name in CONTROLS.items()
        if summary.get(ACCURACIES[key]) is not None
    ]
