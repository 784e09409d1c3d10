"""From one committed state of a run to the next: a pure function of the updates that were counted."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.interfaces import ServerHalf
from fedbbpt.types import Arrays, Metrics, Phase, Report, Snapshot, Update, pack

log = logging.getLogger(__name__)


def aggregate(
    method: ServerHalf[Any],
    snapshot: Snapshot,
    phase: Phase,
    updates: Sequence[Update],
    seed: int,
    seconds: float,
    traffic: tuple[int, int] | None = None,
    window: int = 1,
) -> Snapshot:
    """The snapshot after `snapshot.round`.

    `updates` come decoded, sorted by client id; `seed` is that of the tasks; `traffic` is bytes up and down. The dev
    measurements are of the prompt that the round began with, so it is that prompt which may become the best: by what
    the last `window` rounds measured together.
    """
    total: dict[str, float] = {}
    for update in updates:
        for name, value in update.metrics.items():
            total[name] = total.get(name, 0.0) + value
    count, queries = total["dev_count"], round(total["queries"])
    # Some clients may have a PTM that lets them know, and others none.
    known = all("dev_correct" in update.metrics for update in updates if update.metrics["dev_count"])
    state, metrics = (
        _step(method, snapshot, updates, seed) if phase is Phase.UPDATE else (snapshot.state, dict[str, float]())
    )
    report = Report(
        round=snapshot.round,
        clients=len(updates),
        dev_loss=total["dev_loss"] / count if count else math.inf,
        dev_accuracy=total["dev_correct"] / count if count and known else None,
        train_loss=metrics.get("train_loss"),
        queries=queries,
        seconds=seconds,
        bytes_up=None if traffic is None else traffic[0],
        bytes_down=None if traffic is None else traffic[1],
        dev_examples=round(count),
    )
    reports = (*snapshot.reports, report)
    measured = pooled(reports[-window:])
    best, best_z = snapshot.best, snapshot.best_z
    # What came before the first full window was measured on too little to be compared with.
    if best is None or len(reports) <= window or measured.rank >= best.rank:
        best, best_z = measured, method.prompt(method.restore(snapshot.state))
    return replace(
        snapshot,
        round=snapshot.round + 1,
        state=state,
        best=best,
        best_z=best_z,
        queries=snapshot.queries + queries,
        reports=reports,
    )


def pooled(reports: Sequence[Report]) -> Report:
    """The last of the reports, with dev loss and accuracy over the dev examples of all of them.

    Where a round asks only some clients, its own measurement says more of their examples than of its prompt.
    """
    if len(reports) == 1:
        return reports[0]
    measured = [report for report in reports if report.dev_examples]
    count = sum(report.dev_examples for report in measured)
    right = [report.dev_accuracy * report.dev_examples for report in measured if report.dev_accuracy is not None]
    return replace(
        reports[-1],
        dev_loss=sum(report.dev_loss * report.dev_examples for report in measured) / count if count else math.inf,
        dev_accuracy=sum(right) / count if count and len(right) == len(measured) else None,
        dev_examples=count,
    )


def tuned(method: ServerHalf[Any], snapshot: Snapshot, updates: Sequence[Update], seed: int) -> Snapshot:
    """The snapshot after the owner's turn: the same round, from another prompt."""
    return replace(snapshot, state=_step(method, snapshot, updates, seed)[0])


def _step(method: ServerHalf[Any], snapshot: Snapshot, updates: Sequence[Update], seed: int) -> tuple[Arrays, Metrics]:
    """The next state. Where the arithmetic fails the old one stands: one bad round does not end a run."""
    try:
        # Overflow shows in the result, which is checked.
        with np.errstate(all="ignore"):
            state, metrics = method.step(method.restore(snapshot.state), updates, seed)
    except (ArithmeticError, np.linalg.LinAlgError):
        log.exception("round %d: the step failed; the state stays as it was", snapshot.round)
        return snapshot.state, {}
    packed = pack(state)
    unsound = [name for name, array in packed.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if unsound:
        log.error("round %d: the step made %s infinite or NaN; the state stays as it was", snapshot.round, unsound)
        return snapshot.state, {}
    return packed, metrics
