"""A link over gRPC: joins, holds one stream of tasks open, submits; when the line breaks it joins again and goes on.

Only calls that are idempotent by the protocol are made again: Join, StreamTasks and SubmitUpdate all are.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from fedbbpt.client.download import Download
from fedbbpt.errors import (
    ChecksumMismatch,
    CoordinatorUnavailable,
    DeadlineExceeded,
    FedbbptError,
    InvalidRequest,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    Unavailable,
    UnknownRound,
    UnknownRun,
)
from fedbbpt.interfaces import RunSettings
from fedbbpt.types import Auxiliary, Hello, Receipt, Task, TaskId, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.status import RETRYABLE, from_rpc_error
from fedbbpt.wire.tensors import Assembler, bundle, checked, chunks

log = logging.getLogger(__name__)

SILENT_HEARTBEATS = 3
WRONG_FILES = 3
"""So often an auxiliary model may arrive with another digest than was announced."""

AGAIN = (*RETRYABLE, ChecksumMismatch, DeadlineExceeded)
"""After these the same call is made again: the other side was not ready, or the line changed or swallowed bytes."""


class RemoteCoordinator:
    """`interfaces.Link` over a channel.

    A call that lasts longer than `call_seconds` is made again. Gives up with the last call's error after
    `patience_seconds` without an answer.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        call_seconds: float = 30.0,
        patience_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = CoordinatorServiceStub(channel)
        self._call_seconds = call_seconds
        self._patience = Patience(patience_seconds, CoordinatorUnavailable, AGAIN, clock, pause)
        self._hello: Hello | None = None
        self._run_id, self._session = "", ""
        self._heartbeat_seconds = 0.0
        self._max_update_bytes = 0

    def join(self, hello: Hello) -> RunSettings:
        self._hello = hello
        return self._patience.call(self._join)

    def _join(self) -> RunSettings:
        assert self._hello is not None, "tasks and submit come after join"
        response = self._stub.Join(coordinator_messages.join_request(self._hello), timeout=self._call_seconds)
        settings = coordinator_messages.run_settings(response)
        if self._run_id not in ("", settings.run_id):
            raise UnknownRun(f"{self._run_id} has given way to {settings.run_id}", where="run_id", fix="start anew")
        self._run_id, self._session = settings.run_id, response.session
        self._heartbeat_seconds = response.heartbeat.ToTimedelta().total_seconds()
        self._max_update_bytes = response.max_update_bytes
        return settings

    def fetch_auxiliary(self, announced: Auxiliary, folder: Path) -> Path:
        """The auxiliary model's file in `folder`: the one that is there already, or what is missing of it fetched."""
        download = Download(folder, announced)
        for _ in range(WRONG_FILES):
            while not download.done and download.fetched_bytes < announced.size_bytes:
                try:
                    self._patience.call(lambda: self._pull(download))
                except (SessionUnknown, SessionEvicted):
                    self._patience.call(self._join)
            try:
                return download.path if download.done else download.finish()
            except ChecksumMismatch as error:
                log.warning("%s; fetching it again", error)
        raise ChecksumMismatch("the auxiliary model is another than announced", where="auxiliary", fix="a new run")

    def _pull(self, download: Download) -> None:
        """What one call brings; raises where that is nothing."""
        before = download.fetched_bytes
        request = pb.GetAuxiliaryRequest(session=self._session, offset=before)
        stream = self._stub.GetAuxiliary(request)
        watch = _Watch(stream, SILENT_HEARTBEATS * self._heartbeat_seconds)
        try:
            for response in stream:
                watch.stop()
                download.add(checked(response.chunk, download.fetched_bytes))
                watch.start()
        except (grpc.RpcError, ChecksumMismatch) as error:
            if download.fetched_bytes == before and isinstance(error, grpc.RpcError):
                raise
            log.info("the auxiliary model stopped at byte %d", download.fetched_bytes)
        else:
            if download.fetched_bytes == before:
                raise CoordinatorUnavailable(f"the auxiliary model ends at byte {before}", where="auxiliary")
        finally:
            watch.stop()
            stream.cancel()

    def tasks(self) -> Iterator[Task]:
        while True:
            session = self._session
            problem: FedbbptError
            try:
                yield from self._read(self._stub.StreamTasks(pb.StreamTasksRequest(session=session)))
                return
            except grpc.RpcError as error:
                problem = from_rpc_error(error, CoordinatorUnavailable)
            except (CoordinatorUnavailable, ChecksumMismatch) as error:
                problem = error
            if isinstance(problem, RunFinished):
                return
            # A session that this very link replaced, by joining again while it submitted, is no reason to stop.
            replaced = isinstance(problem, SessionEvicted) and session != self._session
            if not (replaced or isinstance(problem, (Unavailable, SessionUnknown, ChecksumMismatch))):
                raise problem
            log.info("the stream of tasks ended (%s); joining again", problem)
            if session == self._session:
                try:
                    self._patience.call(self._join)
                except RunFinished:
                    return

    def _read(self, stream: Iterator[pb.StreamTasksResponse]) -> Iterator[Task]:
        """The tasks of one stream, up to `finished`."""
        watch = _Watch(stream, SILENT_HEARTBEATS * self._heartbeat_seconds)
        header: pb.TaskHeader | None = None
        assembler: Assembler | None = None
        try:
            for response in stream:
                watch.stop()
                kind = response.WhichOneof("event")
                if kind == "finished":
                    return
                if kind == "task":
                    header, assembler = response.task, Assembler(response.task.arrays, self._max_update_bytes)
                elif kind == "chunk":
                    if assembler is None:
                        raise InvalidRequest("a chunk without a task", where="StreamTasksResponse.chunk")
                    assembler.add(response.chunk)
                if header is not None and assembler is not None and assembler.complete:
                    yield coordinator_messages.task(header, assembler.arrays())
                    header, assembler = None, None
                watch.start()
        finally:
            watch.stop()
        raise CoordinatorUnavailable("the stream ended before the run did")

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        announced, data = bundle(update.arrays)

        def send() -> Receipt:
            def parts() -> Iterator[pb.SubmitUpdateRequest]:
                header = coordinator_messages.update_header(self._session, task_id, update, announced)
                yield pb.SubmitUpdateRequest(header=header)
                for chunk in chunks(data):
                    yield pb.SubmitUpdateRequest(chunk=chunk)

            return coordinator_messages.receipt(self._stub.SubmitUpdate(parts(), timeout=self._call_seconds).receipt)

        while True:
            try:
                return self._patience.call(send)
            except SessionUnknown:
                try:
                    self._patience.call(self._join)
                except RunFinished:
                    return Receipt.TOO_LATE
            except (RunFinished, UnknownRound):
                # A coordinator whose store was put back to an earlier day asks for that round again.
                return Receipt.TOO_LATE

    def leave(self) -> None:
        self._patience.call(
            lambda: self._stub.Leave(pb.LeaveRequest(session=self._session), timeout=self._call_seconds)
        )


class _Watch:
    """Cancels a stream that is silent for too long: a coordinator that hangs still answers the transport's pings."""

    def __init__(self, stream: Any, limit_seconds: float) -> None:
        self._stream, self._limit_seconds = stream, limit_seconds
        self.start()

    def start(self) -> None:
        # The work on a task lies between two reads and is nobody's silence, hence stop and start around it.
        self._timer = threading.Timer(self._limit_seconds, self._stream.cancel)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
