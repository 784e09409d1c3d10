"""The operator's view of the runs on a remote coordinator, over gRPC."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import grpc

from fedbbpt.errors import CoordinatorUnavailable
from fedbbpt.types import MemberStatus, NewRun, Report, Result, RunEvent, RunStatus
from fedbbpt.v1 import run_pb2 as pb
from fedbbpt.v1.run_pb2_grpc import RunServiceStub
from fedbbpt.wire.messages import operator_messages
from fedbbpt.wire.peers import Line, line_of

CALL_SECONDS = 10.0

BACKUP_SECONDS = 600.0
"""How long a coordinator may take to write a backup."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backup:
    """A file on the coordinator's machine from which the run can continue."""

    file: str
    """Its path, relative to the folder of the coordinator's store."""
    size_bytes: int
    sha256: str
    round: int
    """The open round."""


@dataclass(frozen=True, slots=True)
class RunNews:
    """The state of a run, with what has happened since the state before."""

    status: RunStatus
    reports: tuple[Report, ...]
    """The rounds that have closed."""
    events: tuple[RunEvent, ...]


class RemoteRun:
    """A run on a remote coordinator.

    Every call may raise CoordinatorUnavailable, UnknownRun, and the errors of the coordinator's own method.
    """

    def __init__(self, channel: grpc.Channel, name: str = "") -> None:
        """`name` names the run; empty: the coordinator's only one."""
        self._stub, self._line, self._name = RunServiceStub(channel), line_of(channel), name

    def status(self) -> RunStatus:
        """Returns the progress of the run, and the clients that take part."""
        request = pb.GetRunRequest(run=self._name)
        return operator_messages.run_status(self._call(lambda: self._stub.GetRun(request, timeout=CALL_SECONDS)).run)

    def watch(self, since_round: int = 0) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]:
        """Yields the status now and after changes, with the reports of the rounds closed since; ends with the run.

        The first reports are those from round `since_round` on.
        """
        for news in self.watch_events(since_round):
            yield news.status, news.reports

    def watch_events(self, since_round: int = 0) -> Iterator[RunNews]:
        """Yields what `watch` does, with the events since the previous item; the first has the last events."""
        try:
            progress = operator_messages.Progress()
            for response in self._stub.WatchRun(pb.WatchRunRequest(since_round=since_round, run=self._name)):
                yield RunNews(*progress.read(response), tuple(map(operator_messages.event, response.events)))
        except grpc.RpcError as error:
            raise self._line.problem(error, CoordinatorUnavailable) from None

    def stop(self) -> RunStatus:
        """Ends the run after the open round, and returns its status. Idempotent."""
        request = pb.StopRunRequest(run=self._name)
        return operator_messages.run_status(self._call(lambda: self._stub.StopRun(request, timeout=CALL_SECONDS)).run)

    def result(self) -> Result:
        """Returns the best prompt so far. Raises NoResultYet before the first round has closed."""
        return operator_messages.result(self._result())

    def result_with_card(self) -> tuple[Result, str]:
        """Returns the best prompt so far and its card, as JSON. Raises NoResultYet before a round has closed."""
        response = self._result()
        return operator_messages.result(response), response.card

    def _result(self) -> pb.GetResultResponse:
        request = pb.GetResultRequest(run=self._name)
        return self._call(lambda: self._stub.GetResult(request, timeout=CALL_SECONDS))

    def members(self) -> list[MemberStatus]:
        """Returns all clients whose names are taken, also those that no longer take part."""
        request = pb.ListMembersRequest(run=self._name)
        response = self._call(lambda: self._stub.ListMembers(request, timeout=CALL_SECONDS))
        return list(map(operator_messages.member_status, response.members))

    def remove(self, client_id: str) -> None:
        """Takes a client out of the run, and frees its name."""
        request = pb.RemoveMemberRequest(run=self._name, client_id=client_id)
        self._call(lambda: self._stub.RemoveMember(request, timeout=CALL_SECONDS))

    def delete(self) -> None:
        """Deletes the run, which has ended, with its files."""
        self._call(lambda: self._stub.DeleteRun(pb.DeleteRunRequest(run=self._name), timeout=CALL_SECONDS))

    def play_on(self, rounds: int) -> RunStatus:
        """Lets the run, which has ended, play so many rounds more."""
        request = pb.ContinueRunRequest(run=self._name, rounds=rounds)
        response = self._call(lambda: self._stub.ContinueRun(request, timeout=CALL_SECONDS))
        return operator_messages.run_status(response.run)

    def backup(self, name: str) -> Backup:
        """Lets the coordinator write a backup of this name next to its store, and returns a description of the file."""
        request = pb.BackupRunRequest(file=name, run=self._name)
        response = self._call(lambda: self._stub.BackupRun(request, timeout=BACKUP_SECONDS))
        return Backup(response.file, response.size_bytes, response.sha256.hex(), response.round)

    def _call(self, call: Callable[[], T]) -> T:
        return _translated(self._line, call)


class RemoteRuns:
    """The runs of a remote coordinator. Every call may raise CoordinatorUnavailable."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel, self._stub, self._line = channel, RunServiceStub(channel), line_of(channel)

    def run(self, name: str) -> RemoteRun:
        """Returns the run of this name; empty: the coordinator's only one. It is not asked for yet."""
        return RemoteRun(self._channel, name)

    def list(self) -> tuple[RunStatus, ...]:
        """Returns the status of every run, without members."""
        response = _translated(self._line, lambda: self._stub.ListRuns(pb.ListRunsRequest(), timeout=CALL_SECONDS))
        return tuple(map(operator_messages.run_status, response.runs))

    def submit(self, new: NewRun) -> RunStatus:
        """Begins a run. Raises what SubmitRun documents."""
        request = pb.SubmitRunRequest(**asdict(new))
        response = _translated(self._line, lambda: self._stub.SubmitRun(request, timeout=CALL_SECONDS))
        return operator_messages.run_status(response.run)


def _translated(line: Line, call: Callable[[], T]) -> T:
    try:
        return call()
    except grpc.RpcError as error:
        raise line.problem(error, CoordinatorUnavailable) from None
