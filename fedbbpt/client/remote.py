"""A client's link to the coordinator over gRPC: it joins, keeps one stream of tasks open, and submits updates.

When the connection breaks, the link joins again and continues. It repeats only calls that are idempotent by the
protocol; Join, StreamTasks, SubmitUpdate and StreamUpdate all are.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from fedbbpt.client.auxiliary_download import AuxiliaryDownload
from fedbbpt.client.held_search import CannotReplay, HeldSearch
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
from fedbbpt.methods import SETTINGS, client_method
from fedbbpt.methods.replay import News, Told
from fedbbpt.types import (
    Arrays,
    Auxiliary,
    ExtensionSettings,
    Hello,
    PtmIdentity,
    Receipt,
    RunSettings,
    Task,
    TaskId,
    Update,
)
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.messages.durations import seconds_of
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.peers import line_of
from fedbbpt.wire.status import RETRYABLE, from_rpc_error
from fedbbpt.wire.tensors import Assembler, bundle, checked, chunks, unlabelled

log = logging.getLogger(__name__)

SILENT_HEARTBEATS = 3
"""The number of heartbeat intervals after which a silent stream is cancelled."""
DOWNLOAD_ATTEMPTS = 3
"""How many complete downloads of the auxiliary model may have a wrong digest before the client gives up."""

RETRIED = (*RETRYABLE, ChecksumMismatch, DeadlineExceeded)
"""Errors after which the same call is made again: the coordinator was not ready, or the network lost bytes."""


class RemoteCoordinator:
    """A coordinator at the other end of a channel, as a client sees it: an `interfaces.Link`.

    Raises the error of the last attempt when a call still fails after `patience_seconds`. One thread may read tasks
    while another submits.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        run: str = "",
        call_seconds: float = 30.0,
        patience_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            channel: the connection to the coordinator.
            run: the name of the run to join; empty: the coordinator's only one.
            call_seconds: the timeout of one attempt of a call.
            patience_seconds: how long a call is repeated after its first failure.
            clock: returns the time in seconds.
            pause: sleeps for a number of seconds.
        """
        self._stub, self._run_name = CoordinatorServiceStub(channel), run
        self._call_seconds = call_seconds
        line = line_of(channel)
        self._patience = Patience(patience_seconds, CoordinatorUnavailable, RETRIED, line, clock, pause)
        self._hello: Hello | None = None
        self._run_id, self._session = "", ""
        self._ptm: PtmIdentity | None = None
        self._heartbeat_seconds = 0.0
        self._max_update_bytes = 0
        self._search: HeldSearch | None = None
        self._joining = threading.Lock()

    def join(self, hello: Hello) -> RunSettings:
        self._hello = hello
        settings = self._patience.call(self._join)
        if not isinstance(settings.method, ExtensionSettings) and (replay := client_method(settings).replay):
            self._search = HeldSearch(replay)
        return settings

    def _join(self) -> RunSettings:
        assert self._hello is not None, "join comes first"
        request = coordinator_messages.join_request(self._hello, self._run_name)
        response = self._stub.Join(request, timeout=self._call_seconds)
        settings = coordinator_messages.run_settings(response, SETTINGS)
        if self._run_id not in ("", settings.run_id):
            raise UnknownRun(
                f"the coordinator now serves {settings.run_id}, not {self._run_id}",
                where="run_id",
                fix="start the client again",
            )
        self._run_id, self._session, self._run_name = settings.run_id, response.session, response.run_name
        self._heartbeat_seconds = seconds_of(response.heartbeat)
        self._max_update_bytes = response.max_update_bytes
        if self._ptm is not None:
            self.report_ptm(self._ptm)
        return settings

    def _join_again(self, session: str) -> None:
        """Replaces a session that has become invalid, unless another thread has done so."""
        with self._joining:
            if session == self._session:
                self._patience.call(self._join)

    @property
    def told(self) -> Told | None:
        """The forms in which the last task can be told to clients that replay; None if it came as a broadcast."""
        return self._search.told if self._search is not None else None

    @property
    def run_name(self) -> str:
        """The run's name at its coordinator, once the client has joined."""
        return self._run_name

    def report_trouble(self, text: str) -> None:
        request = pb.ReportTroubleRequest(session=self._session, text=text)
        self._tell(lambda: self._stub.ReportTrouble(request, timeout=self._call_seconds))

    def report_ptm(self, ptm: PtmIdentity) -> None:
        """Tells the coordinator which PTM the client asks, now and whenever the link joins again. Does not fail."""
        self._ptm = ptm
        request = pb.ReportPtmRequest(
            session=self._session, model=ptm.model, revision=ptm.revision, precision=ptm.precision
        )
        self._tell(lambda: self._stub.ReportPtm(request, timeout=self._call_seconds))

    def _tell(self, call: Callable[[], object]) -> None:
        try:
            call()
        except grpc.RpcError as error:
            log.info("the coordinator was not told: %s", from_rpc_error(error, CoordinatorUnavailable))

    def fetch_auxiliary(self, announced: Auxiliary, folder: Path) -> Path:
        """Returns the auxiliary model's file in `folder`, after downloading what is missing of it.

        Raises ChecksumMismatch if the coordinator keeps sending a file with another digest than it announced.
        """
        download = AuxiliaryDownload(folder, announced)
        for _ in range(DOWNLOAD_ATTEMPTS):
            while not download.done and download.fetched_bytes < announced.size_bytes:
                try:
                    self._patience.call(lambda: self._pull(download))
                except (SessionUnknown, SessionEvicted):
                    self._patience.call(self._join)
            try:
                return download.path if download.done else download.finish()
            except ChecksumMismatch as error:
                log.warning("%s; downloading it again", error)
        raise ChecksumMismatch("the auxiliary model is not the announced one", where="auxiliary", fix="a new run")

    def _pull(self, download: AuxiliaryDownload) -> None:
        """Adds the bytes of one call to the download. Raises if there are none."""
        before = download.fetched_bytes
        request = pb.GetAuxiliaryRequest(session=self._session, offset=before)
        stream = self._stub.GetAuxiliary(request)
        try:
            with _SilenceTimer(stream, SILENT_HEARTBEATS * self._heartbeat_seconds) as timer:
                for response in stream:
                    timer.stop()
                    download.add(checked(response.chunk, download.fetched_bytes))
                    timer.start()
        except (grpc.RpcError, ChecksumMismatch) as error:
            if download.fetched_bytes == before and isinstance(error, grpc.RpcError):
                raise
            log.info("the auxiliary model stopped at byte %d", download.fetched_bytes)
        else:
            if download.fetched_bytes == before:
                raise CoordinatorUnavailable(f"the auxiliary model ends at byte {before}", where="auxiliary")
        finally:
            stream.cancel()

    def tasks(self) -> Iterator[Task]:
        while True:
            session = self._session
            problem: FedbbptError
            try:
                yield from self._read(self._stub.StreamTasks(self._request(session)))
                return
            except CannotReplay as reason:
                log.warning("%s; it gets each broadcast whole from now on", reason)
                self._search = None
                continue
            except grpc.RpcError as error:
                problem = from_rpc_error(error, CoordinatorUnavailable)
            except (CoordinatorUnavailable, ChecksumMismatch) as error:
                problem = error
            if isinstance(problem, RunFinished):
                return
            # The link itself may have evicted the stream's session, by joining again during a submit.
            replaced = isinstance(problem, SessionEvicted) and session != self._session
            if not (replaced or isinstance(problem, (Unavailable, SessionUnknown, ChecksumMismatch))):
                raise problem
            log.info("the stream of tasks ended (%s); joining again", problem)
            try:
                self._join_again(session)
            except RunFinished:
                return

    def _request(self, session: str) -> pb.StreamTasksRequest:
        if self._search is None:
            return pb.StreamTasksRequest(session=session)
        return pb.StreamTasksRequest(session=session, replays=True, state=self._search.digest)

    def _read(self, stream: Iterator[pb.StreamTasksResponse]) -> Iterator[Task]:
        """Yields the tasks of one stream, up to `finished`."""
        header: pb.TaskHeader | None = None
        assembler: Assembler | None = None
        with _SilenceTimer(stream, SILENT_HEARTBEATS * self._heartbeat_seconds) as timer:
            for response in stream:
                timer.stop()
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
                    yield coordinator_messages.task(header, self._broadcast(header, assembler.arrays()))
                    header, assembler = None, None
                timer.start()
        raise CoordinatorUnavailable("the stream ended before the run did")

    def _broadcast(self, header: pb.TaskHeader, arrays: Arrays) -> Arrays:
        """Returns the broadcast of a task. Raises CannotReplay."""
        if not header.HasField("replay"):
            return arrays
        if self._search is None:
            raise InvalidRequest("a replay for a client that does not replay", where="TaskHeader.replay")
        news = News(arrays, tuple(header.replay.seeds))
        return self._search.broadcast(header.replay.before, header.replay.after, news, header.seed)

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        announced, data = bundle(update.arrays)
        short = unlabelled(update.arrays) if announced.data else announced

        def send() -> Receipt:
            nonlocal short
            assert self._hello is not None, "join comes first"
            own = {"run_id": self._run_id, "client_id": self._hello.client_id}
            header = coordinator_messages.update_header(self._session, task_id, update, short, **own)
            short = announced  # if it is not understood, it is sent with the descriptions of its arrays
            if data:
                return self._stream(header, data)
            response = self._stub.SubmitUpdate(pb.SubmitUpdateRequest(header=header), timeout=self._call_seconds)
            return coordinator_messages.receipt(response.receipt)

        while True:
            session = self._session
            try:
                return self._patience.call(send)
            except SessionUnknown:
                try:
                    self._join_again(session)
                except RunFinished:
                    return Receipt.TOO_LATE
            except SessionEvicted:
                if session == self._session:
                    raise
                # The thread that reads tasks has joined again meanwhile.
            except (RunFinished, UnknownRound):
                # If the coordinator's store was restored from a backup, this round will be asked for again.
                return Receipt.TOO_LATE

    def _stream(self, header: pb.UpdateHeader, data: bytes) -> Receipt:
        def parts() -> Iterator[pb.StreamUpdateRequest]:
            yield pb.StreamUpdateRequest(header=header)
            for chunk in chunks(data):
                yield pb.StreamUpdateRequest(chunk=chunk)

        return coordinator_messages.receipt(self._stub.StreamUpdate(parts(), timeout=self._call_seconds).receipt)

    def leave(self) -> None:
        self._patience.call(
            lambda: self._stub.Leave(pb.LeaveRequest(session=self._session), timeout=self._call_seconds)
        )


class _SilenceTimer:
    """Cancels a stream after a silence of `limit_seconds`, in a `with` block.

    The transport's own keepalive is not enough: a coordinator that hangs still answers pings.
    """

    def __init__(self, stream: Any, limit_seconds: float) -> None:
        self._stream, self._limit_seconds = stream, limit_seconds
        self._over = threading.Event()
        self._heard: float | None = None
        """When the stream was heard last; None while the caller works on a task, which is no silence of the stream."""

    def __enter__(self) -> "_SilenceTimer":
        self.start()
        # One thread for the whole stream: it looks again when the silence could be over, not at each message.
        threading.Thread(target=self._watch, daemon=True, name="silence").start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()

    def start(self) -> None:
        """Begins a silence."""
        self._heard = time.monotonic()

    def stop(self) -> None:
        """Ends a silence."""
        self._heard = None

    def _watch(self) -> None:
        left = self._limit_seconds
        while not self._over.wait(left):
            heard = self._heard
            left = self._limit_seconds if heard is None else heard + self._limit_seconds - time.monotonic()
            if left <= 0:
                self._stream.cancel()
                return
