"""The step from one committed state of a run to the next: a pure function of the counted updates."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.interfaces import ServerHalf
from fedbbpt.server.finalists import measured_again, places, ranked, with_dev_figures
from fedbbpt.types import (
    Arrays,
    Measurement,
    Metrics,
    Phase,
    PrivacySpent,
    Report,
    Result,
    Sampling,
    Snapshot,
    Update,
    pack,
)

log = logging.getLogger(__name__)

S = TypeVar("S")


def aggregate(
    method: ServerHalf[S],
    state: S,
    snapshot: Snapshot,
    updates: Sequence[Update],
    *,
    clients: int,
    staleness: float = 0.0,
    phase: Phase,
    seed: int,
    seconds: float,
    traffic: tuple[int, int] | None = None,
    window: int = 1,
    sampling: Sampling,
    entries: int,
    spent: PrivacySpent | None = None,
) -> Snapshot:
    """Returns the snapshot after round `snapshot.round`.

    The dev measurements of a round are of the prompt that the round began with, so this is the prompt that may become
    the best. It is compared by the measurements of the last `window` measured rounds together; in the last round of a
    run that measures on samples, by that round alone, which measures all that are compared.

    Args:
        method: the server's half of the run's method.
        state: the method's state before the round, restored from `snapshot.state`.
        snapshot: the committed state of the run before the round.
        updates: the counted updates, decoded, sorted by client id; or, for a linear method, their sum alone.
        clients: the number of counted updates.
        staleness: their mean staleness, in rounds.
        phase: the phase of the round's tasks; only an UPDATE changes the method's state.
        seed: the seed of the round's tasks.
        seconds: the duration of the round.
        traffic: the round's bytes up and down; None if they are not metered.
        window: the number of measured rounds over which dev measurements are pooled.
        sampling: the rounds that measure their prompt, and whether on a sample of the dev examples.
        entries: the number of first entries of z that are a prompt.
        spent: what the run has spent with this round, if it has a privacy budget. The noisy sums of such a run do not
            hold the loss of the training examples.
    """
    total = sum((update.measurement for update in updates), Measurement())
    next_state = snapshot.state
    metrics: Metrics = {}
    if phase is Phase.UPDATE:
        next_state, metrics = _step(method, state, snapshot, updates, seed)
    report = Report(
        round=snapshot.round,
        clients=clients,
        dev_loss=None,
        dev_accuracy=None,
        train_loss=metrics.get("train_loss") if spent is None else None,
        queries=total.queries,
        seconds=seconds,
        bytes_up=None if traffic is None else traffic[0],
        bytes_down=None if traffic is None else traffic[1],
        staleness=staleness,
        epsilon=None if spent is None else spent.epsilon,
    )
    reports = (*snapshot.reports, with_dev_figures(report, total))
    return replace(
        snapshot,
        round=snapshot.round + 1,
        state=next_state,
        finalists=_finalists(
            method.prompt(state), snapshot.finalists, reports, updates, phase, window, sampling, entries
        ),
        queries=snapshot.queries + total.queries,
        reports=reports,
    )


def _finalists(
    z: npt.NDArray[np.float32],
    before: Sequence[Result],
    reports: Sequence[Report],
    updates: Sequence[Update],
    phase: Phase,
    window: int,
    sampling: Sampling,
    entries: int,
) -> tuple[Result, ...]:
    """Returns the best prompts after the round of the last report, which began with the prompt z `[n]`."""
    if phase is Phase.EVALUATE and sampling.batch_examples:
        return ranked(Result(z, reports[-1]), measured_again(before, updates), places(sampling), entries)
    earlier, last = reports[:-1], reports[-1]
    if phase is Phase.UPDATE and not _measured(last, sampling):
        return tuple(before)
    # Newest first, and no more than are needed, since there may be thousands.
    due = list(islice((report for report in reversed(earlier) if _measured(report, sampling)), window))
    candidate = Result(z, pool([*reversed(due[: window - 1]), last]))
    # Reports before the first full window pool too few dev examples to be compared with.
    return ranked(candidate, before if len(due) >= window else (), places(sampling), entries)


def _measured(report: Report, sampling: Sampling) -> bool:
    """Returns whether a round measured its prompt, as a round that fits a readout does even if it is not due."""
    return sampling.measures(report.round) or report.dev_examples > 0


def pool(reports: Sequence[Report]) -> Report:
    """Returns the last report, with dev loss and dev accuracy over the dev examples of all the reports.

    Where a round samples only some clients, its own measurement depends more on their examples than on its prompt.
    """
    if len(reports) == 1:
        return reports[0]
    measured = [report for report in reports if report.dev_examples]
    count = sum(report.dev_examples for report in measured)
    losses = [report.dev_loss * report.dev_examples for report in measured if report.dev_loss is not None]
    right = [report.dev_accuracy * report.dev_examples for report in measured if report.dev_accuracy is not None]
    return replace(
        reports[-1],
        dev_loss=sum(losses) / count if count else None,
        dev_accuracy=sum(right) / count if count and len(right) == len(measured) else None,
        dev_examples=count,
    )


def apply_owner_update(
    method: ServerHalf[S], state: S, snapshot: Snapshot, updates: Sequence[Update], seed: int
) -> Snapshot:
    """Returns the snapshot after the model owner's turn: the same round, with the prompt that the owner tuned."""
    return replace(snapshot, state=_step(method, state, snapshot, updates, seed)[0])


def _step(
    method: ServerHalf[S], state: S, snapshot: Snapshot, updates: Sequence[Update], seed: int
) -> tuple[Arrays, Metrics]:
    """Returns the next state, or the old one if the arithmetic fails: one bad round does not end a run."""
    try:
        # An overflow shows in the result, which is checked below.
        with np.errstate(all="ignore"):
            found, metrics = method.step(state, updates, seed)
    except (ArithmeticError, np.linalg.LinAlgError):
        log.exception("round %d: the step failed; the state stays as it was", snapshot.round)
        return snapshot.state, {}
    packed = pack(found)
    broken = [name for name, array in packed.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        log.error("round %d: the step made %s infinite or NaN; the state stays as it was", snapshot.round, broken)
        return snapshot.state, {}
    return packed, metrics
