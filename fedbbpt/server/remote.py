"""The operator's view of a run on a remote coordinator, over gRPC."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import grpc

from fedbbpt.errors import CoordinatorUnavailable
from fedbbpt.types import Report, Result, RunStatus
from fedbbpt.v1 import run_pb2 as pb
from fedbbpt.v1.run_pb2_grpc import RunServiceStub
from fedbbpt.wire.messages import operator_messages
from fedbbpt.wire.peers import line_of

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


class RemoteRun:
    """A run on a remote coordinator.

    Every call may raise CoordinatorUnavailable, and the errors of the coordinator's own method.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub, self._line = RunServiceStub(channel), line_of(channel)

    def status(self) -> RunStatus:
        """Returns the progress of the run, and the clients that take part."""
        return operator_messages.run_status(
            self._call(lambda: self._stub.GetRun(pb.GetRunRequest(), timeout=CALL_SECONDS)).run
        )

    def watch(self, since_round: int = 0) -> Iterator[tuple[RunStatus, tuple[Report, ...]]]:
        """Yields the status now and after changes, with the reports of the rounds closed since; ends with the run.

        The first reports are those from round `since_round` on.
        """
        try:
            progress = operator_messages.Progress()
            for response in self._stub.WatchRun(pb.WatchRunRequest(since_round=since_round)):
                yield progress.read(response)
        except grpc.RpcError as error:
            raise self._line.problem(error, CoordinatorUnavailable) from None

    def stop(self) -> RunStatus:
        """Ends the run after the open round, and returns its status. Idempotent."""
        return operator_messages.run_status(
            self._call(lambda: self._stub.StopRun(pb.StopRunRequest(), timeout=CALL_SECONDS)).run
        )

    def result(self) -> Result:
        """Returns the best prompt so far. Raises NoResultYet before the first round has closed."""
        return operator_messages.result(
            self._call(lambda: self._stub.GetResult(pb.GetResultRequest(), timeout=CALL_SECONDS))
        )

    def backup(self, name: str) -> Backup:
        """Lets the coordinator write a backup of this name next to its store, and returns a description of the file."""
        request = pb.BackupRunRequest(file=name)
        response = self._call(lambda: self._stub.BackupRun(request, timeout=BACKUP_SECONDS))
        return Backup(response.file, response.size_bytes, response.sha256.hex(), response.round)

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except grpc.RpcError as error:
            raise self._line.problem(error, CoordinatorUnavailable) from None
