"""A run as its operator sees it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fedbbpt.interfaces import Report, Snapshot


class RunState(StrEnum):
    WAITING = "waiting"
    """Too few clients have joined."""
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """By an operator, before its last round."""

    @property
    def ended(self) -> bool:
        return self in (RunState.FINISHED, RunState.STOPPED)


def state_of(snapshot: Snapshot | None, rounds: int) -> RunState:
    """Of a run whose last round is `rounds`; its first snapshot is committed when it starts."""
    if snapshot is None:
        return RunState.WAITING
    last = rounds if snapshot.stopped_after is None else snapshot.stopped_after
    if snapshot.round <= last:
        return RunState.RUNNING
    return RunState.FINISHED if last == rounds else RunState.STOPPED


@dataclass(frozen=True, slots=True)
class MemberStatus:
    client_id: str
    connected: bool
    submitted: bool
    """Counted in the round that stands open."""
    examples: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    run_id: str
    method: str
    state: RunState
    round: int
    rounds: int
    members: tuple[MemberStatus, ...]
    last: Report | None
    best: Report | None
    queries: int
    bytes_up: int | None
    """Since the coordinator started; None where nobody counts."""
    bytes_down: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """The best prompt by dev data: z `[n]`, and the round that measured it."""

    z: npt.NDArray[np.float32]
    measured: Report
