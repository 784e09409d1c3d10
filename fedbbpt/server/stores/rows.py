"""Translates values to rows and back. Each row holds its key, a record in JSON, its arrays, and a checksum of all that.

Arrays are stored as safetensors, so that a store can be read without this package; wire messages are never stored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy

from fedbbpt.types import Arrays, Earlier, Measurement, Member, PrivacyAccount, Report, Result, Snapshot, TaskId, Update

Row: TypeAlias = dict[str, Any]

CHECKSUM_BYTES = 16
EARLIER = "earlier/"
"""Begins the names of arrays of earlier rounds among those of a state."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The identity of the run in a store."""

    run_id: str
    seed: int
    job_digest: str
    created: str
    """The time of creation, in ISO 8601."""


def checksum(table: str, columns: Mapping[str, object]) -> bytes:
    """Returns the checksum of a row of `table`, which depends on the names, types and values of its columns."""
    digest = blake2b(table.encode(), digest_size=CHECKSUM_BYTES)
    for name, value in columns.items():
        data = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(f"{name}:{type(value).__name__}:{len(data)}:".encode())
        digest.update(data)
    return digest.digest()


def run_row(run: RunRecord) -> Row:
    """Returns the row of a run's identity."""
    return _sealed("run", {"id": 0, "record": _json(run)})


def run_of(row: Row) -> RunRecord:
    """Returns the identity in a row."""
    return RunRecord(**json.loads(row["record"]))


def member_row(member: Member) -> Row:
    """Returns the row of a member."""
    return _sealed("member", {"client_id": member.client_id, "record": _json(member)})


def member_of(row: Row) -> Member:
    """Returns the member in a row."""
    return Member(**json.loads(row["record"]))


def report_row(report: Report) -> Row:
    """Returns the row of a closed round's report."""
    return _sealed("report", {"round": report.round, "record": _json(report)})


def report_of(row: Row) -> Report:
    """Returns the report in a row."""
    return Report(**json.loads(row["record"]))


def update_row(task_id: TaskId, update: Update) -> Row:
    """Returns the row of an update, encoded as the client sent it."""
    record = {
        "weight": update.weight,
        "measurement": values(update.measurement),
        "finalists": [values(measured) for measured in update.finalists],
    }
    columns = {"round": task_id.round, "client_id": task_id.client_id, "record": json.dumps(record)}
    return _sealed("update", columns | {"arrays": _save(update.arrays)})


def update_of(row: Row) -> Update:
    """Returns the update in a row."""
    record = json.loads(row["record"])
    finalists = tuple(Measurement(**measured) for measured in record["finalists"])
    return Update(_load(row["arrays"]), record["weight"], Measurement(**record["measurement"]), finalists=finalists)


def snapshot_row(snapshot: Snapshot) -> Row:
    """Returns the row of a snapshot, without its reports, which have rows of their own."""
    record = {
        "round": snapshot.round,
        "finalists": [values(result.measured) for result in snapshot.finalists],
        "queries": snapshot.queries,
        "stopped_after": snapshot.stopped_after,
        "privacy": None if snapshot.privacy is None else values(snapshot.privacy),
        "earlier": [{"measured": values(each.measured), "updates": each.updates} for each in snapshot.earlier],
    }
    states = {f"{EARLIER}{n}/{name}": a for n, each in enumerate(snapshot.earlier) for name, a in each.state.items()}
    prompts = {str(place): result.z for place, result in enumerate(snapshot.finalists)}
    arrays = {"state": _save({**snapshot.state, **states}), "finalists_z": _save(prompts)}
    return _sealed("snapshot", {"id": 0, "record": json.dumps(record), **arrays})


def snapshot_of(row: Row, reports: tuple[Report, ...]) -> Snapshot:
    """Returns the snapshot in a row, with the reports of its rounds."""
    record, prompts, arrays = json.loads(row["record"]), _load(row["finalists_z"]), _load(row["state"])
    return Snapshot(
        round=record["round"],
        state={name: array for name, array in arrays.items() if not name.startswith(EARLIER)},
        finalists=tuple(
            Result(prompts[str(place)], Report(**measured)) for place, measured in enumerate(record["finalists"])
        ),
        queries=record["queries"],
        stopped_after=record["stopped_after"],
        reports=reports,
        privacy=None if record["privacy"] is None else PrivacyAccount(**record["privacy"]),
        earlier=tuple(
            Earlier(_of(f"{EARLIER}{n}/", arrays), Measurement(**each["measured"]), each["updates"])
            for n, each in enumerate(record["earlier"])
        ),
    )


def _of(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _sealed(table: str, columns: Row) -> Row:
    return columns | {"checksum": checksum(table, columns)}


def values(record: Any) -> Row:
    """Returns the fields of a record by name. Unlike `dataclasses.asdict`, copies nothing."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _json(record: Any) -> str:
    return json.dumps(values(record))


def _save(arrays: Arrays) -> bytes:
    # safetensors copies the memory as it is, so a transposed view would come back in another order.
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _load(data: bytes) -> Arrays:
    return safetensors.numpy.load(data)
