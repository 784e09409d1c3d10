"""Converts runs, as their operators see them, between `fedbbpt.types` and the messages of run.proto.

Unreadable messages raise InvalidRequest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from fedbbpt.errors import InvalidRequest
from fedbbpt.types import (
    EventKind,
    MemberStatus,
    PrivacyBudget,
    PrivacyLevel,
    PrivacySpent,
    Report,
    Result,
    RunEvent,
    RunState,
    RunStatus,
)
from fedbbpt.v1 import run_pb2
from fedbbpt.wire import tensors
from fedbbpt.wire.messages.codes import read_code

_STATES = {
    RunState.WAITING: run_pb2.RUN_STATE_WAITING,
    RunState.RUNNING: run_pb2.RUN_STATE_RUNNING,
    RunState.FINISHED: run_pb2.RUN_STATE_FINISHED,
    RunState.STOPPED: run_pb2.RUN_STATE_STOPPED,
}

_LEVELS: Mapping[PrivacyLevel, run_pb2.PrivacyLevel.ValueType] = {
    "client": run_pb2.PRIVACY_LEVEL_CLIENT,
    "example": run_pb2.PRIVACY_LEVEL_EXAMPLE,
}

_KINDS: Mapping[EventKind, run_pb2.EventKind.ValueType] = {
    kind: run_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind
}


def round_report(report: Report) -> run_pb2.RoundReport:
    """Writes the report of a round."""
    return run_pb2.RoundReport(**asdict(report))


def report(message: run_pb2.RoundReport) -> Report:
    """Reads the report of a round."""
    return Report(
        round=message.round,
        clients=message.clients,
        dev_loss=message.dev_loss if message.HasField("dev_loss") else None,
        dev_accuracy=message.dev_accuracy if message.HasField("dev_accuracy") else None,
        train_loss=message.train_loss if message.HasField("train_loss") else None,
        queries=message.queries,
        seconds=message.seconds,
        bytes_up=message.bytes_up if message.HasField("bytes_up") else None,
        bytes_down=message.bytes_down if message.HasField("bytes_down") else None,
        dev_examples=message.dev_examples,
        staleness=message.staleness,
        epsilon=message.epsilon if message.HasField("epsilon") else None,
    )


def run(status: RunStatus, name: str = "", *, members: bool = True, late: bool = True) -> run_pb2.Run:
    """Writes the status of a run, with or without its members, and those that are late."""
    return run_pb2.Run(
        name=name,
        run_id=status.run_id,
        method=status.method,
        state=_STATES[status.state],
        round=status.round,
        rounds=status.rounds,
        members=map(member, status.members if members else ()),
        last=None if status.last is None else round_report(status.last),
        best=None if status.best is None else round_report(status.best),
        queries=status.queries,
        bytes_up=status.bytes_up,
        bytes_down=status.bytes_down,
        privacy=None if status.privacy is None else _privacy_message(status.privacy),
        clients=status.clients,
        quorum=status.quorum,
        round_since=status.round_since,
        deadline_seconds=status.deadline_seconds,
        late=map(member, status.late if late else ()),
    )


def _privacy_message(spent: PrivacySpent) -> run_pb2.Privacy:
    return run_pb2.Privacy(
        level=_LEVELS[spent.budget.level],
        epsilon=spent.epsilon,
        epsilon_limit=spent.budget.epsilon,
        delta=spent.budget.delta,
        clip_norm=spent.budget.clip_norm,
        noise_multiplier=spent.noise_multiplier,
    )


def _privacy(message: run_pb2.Privacy) -> PrivacySpent:
    level = read_code(_LEVELS, message.level, "run.privacy.level")
    budget = PrivacyBudget(level, message.epsilon_limit, message.delta, message.clip_norm)
    return PrivacySpent(budget, message.epsilon, message.noise_multiplier)


class Progress:
    """What one watcher of a run has been told, so that each message holds only what has changed."""

    def __init__(self) -> None:
        self._members: dict[str, MemberStatus] = {}

    def response(
        self, status: RunStatus, reports: Sequence[Report], name: str = "", events: Sequence[RunEvent] = ()
    ) -> run_pb2.WatchRunResponse:
        """Writes the changes since the previous call, with the reports of the rounds that closed since then."""
        before, self._members = self._members, {member.client_id: member for member in status.members}
        return run_pb2.WatchRunResponse(
            run=run(status, name, members=False),
            reports=map(round_report, reports),
            members=[member(one) for name, one in self._members.items() if before.get(name) != one],
            left=[name for name in before if name not in self._members],
            events=map(_event_message, events),
        )

    def read(self, response: run_pb2.WatchRunResponse) -> tuple[RunStatus, tuple[Report, ...]]:
        """Reads the status, with all members, and the reports of the rounds that closed since the previous call."""
        self._members |= {one.client_id: member_status(one) for one in response.members}
        for name in response.left:
            self._members.pop(name, None)
        members = tuple(sorted(self._members.values(), key=lambda member: member.client_id))
        return replace(run_status(response.run), members=members), tuple(map(report, response.reports))


def _event_message(event: RunEvent) -> run_pb2.RunEvent:
    return run_pb2.RunEvent(
        number=event.number,
        time=event.time,
        kind=_KINDS[event.kind],
        client_id=event.client_id,
        round=event.round,
        text=event.text,
    )


def event(message: run_pb2.RunEvent) -> RunEvent:
    """Reads an event of a run."""
    kind = read_code(_KINDS, message.kind, "events.kind")
    return RunEvent(message.number, message.time, kind, message.client_id, message.round, message.text)


def member(status: MemberStatus) -> run_pb2.Member:
    """Writes a client."""
    return run_pb2.Member(
        client_id=status.client_id,
        connected=status.connected,
        submitted=status.submitted,
        examples=status.examples,
        trouble=status.trouble,
        trouble_since=status.trouble_since,
        takes_part=status.takes_part,
        heard_at=status.heard_at,
        late_since=status.late_since,
    )


def member_status(message: run_pb2.Member) -> MemberStatus:
    """Reads a client."""
    return MemberStatus(
        message.client_id,
        message.connected,
        message.submitted,
        message.examples,
        message.trouble,
        message.trouble_since,
        message.takes_part,
        message.heard_at,
        message.late_since,
    )


def run_status(message: run_pb2.Run) -> RunStatus:
    """Reads the status of a run."""
    return RunStatus(
        run_id=message.run_id,
        name=message.name,
        method=message.method,
        state=read_code(_STATES, message.state, "run.state"),
        round=message.round,
        rounds=message.rounds,
        members=tuple(map(member_status, message.members)),
        last=report(message.last) if message.HasField("last") else None,
        best=report(message.best) if message.HasField("best") else None,
        queries=message.queries,
        bytes_up=message.bytes_up if message.HasField("bytes_up") else None,
        bytes_down=message.bytes_down if message.HasField("bytes_down") else None,
        privacy=_privacy(message.privacy) if message.HasField("privacy") else None,
        clients=message.clients,
        quorum=message.quorum,
        round_since=message.round_since,
        deadline_seconds=message.deadline_seconds,
        late=tuple(map(member_status, message.late)),
    )


def get_result_response(result: Result, status: RunStatus, name: str, card: str) -> run_pb2.GetResultResponse:
    """Writes the result of a run, its status and its card."""
    return run_pb2.GetResultResponse(
        z=tensors.to_message(result.z), measured=round_report(result.measured), run=run(status, name), card=card
    )


def result(response: run_pb2.GetResultResponse) -> Result:
    """Reads the result of a run."""
    z = tensors.from_message(response.z, where="z")
    if z.dtype != np.float32 or z.ndim != 1:
        raise InvalidRequest(f"{z.dtype} of shape {z.shape}", where="z", fix="float32 [n]")
    return Result(z, report(response.measured))
