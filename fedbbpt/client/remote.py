"""A client's link to the coordinator over gRPC: it joins, keeps one stream of tasks open, and submits updates.

When the connection breaks, the link joins again and continues. It repeats only calls that are idempotent by the
protocol; Join, TakePart and StreamUpdate all are.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from fedbbpt.client.auxiliary_download import AuxiliaryDownload
from fedbbpt.client.held_search import CannotReplay, HeldSearch
from fedbbpt.client.task_stream import SilenceTimer, TaskStream
from fedbbpt.errors import (
    ChecksumMismatch,
    CoordinatorUnavailable,
    DeadlineExceeded,
    FedbbptError,
    InvalidInput,
    InvalidRequest,
    RunFinished,
    SessionEvicted,
    SessionUnknown,
    Unavailable,
    UnknownRound,
    UnknownRun,
)
from fedbbpt.host.allocator import keep_freed_memory
from fedbbpt.host.progress import Advance, progress
from fedbbpt.methods import SETTINGS, client_method
from fedbbpt.methods.replay import News, Told
from fedbbpt.secure.fixed_point import VALUES
from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.secure.messages import FromServer, Waiting
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
from fedbbpt.wire.messages import coordinator_messages, secure_messages
from fedbbpt.wire.messages.durations import seconds_of
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.peers import line_of
from fedbbpt.wire.status import RETRYABLE, from_rpc_error
from fedbbpt.wire.tensors import Assembler, bundle, chunks, unlabelled

if TYPE_CHECKING:
    from fedbbpt.secure.client import SecureClient

log = logging.getLogger(__name__)

DOWNLOAD_ATTEMPTS = 3
"""How many complete downloads of the auxiliary model may have a wrong digest before the client gives up."""

RETRIED = (*RETRYABLE, ChecksumMismatch, DeadlineExceeded)
"""Errors after which the same call is made again: the coordinator was not ready, or the network lost bytes."""


class RemoteCoordinator:
    """A coordinator at the other end of a channel, as a client sees it: an `interfaces.Link`.

    Raises the error of the last attempt when a call still fails after `patience_seconds`.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        run: str = "",
        submits_apart: bool = False,
        call_seconds: float = 30.0,
        patience_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            channel: the connection to the coordinator.
            run: the name of the run to join; empty: the coordinator's only one.
            submits_apart: sends each update in a call of its own, so that one thread may read tasks while another
                submits.
            call_seconds: the timeout of one attempt of a call, and of a receipt.
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
        self._secure: SecureClient | None = None
        """The client's secrets in a run with secure aggregation, for as long as this process lives."""
        self._joining = threading.Lock()
        self._submits_apart = submits_apart
        self._stream: TaskStream | None = None
        self._session_of_stream = ""
        self._arrived: deque[tuple[pb.TaskHeader, Arrays]] = deque()
        """Tasks that the stream has brought and nobody has taken yet."""
        self._incomplete: tuple[pb.TaskHeader, Assembler] | None = None
        """A task whose chunks are still to come."""
        self._finished = False

    def join(self, hello: Hello) -> RunSettings:
        self._hello = hello
        settings = self._patience.call(self._join)
        if not isinstance(settings.method, ExtensionSettings) and (replay := client_method(settings).replay):
            self._search = HeldSearch(replay)
        if settings.secure_threshold is not None:
            least = LEAST_CLIENTS if settings.noise is None else settings.noise.clients
            from fedbbpt.secure.client import SecureClient  # few runs need `cryptography`

            self._secure = SecureClient(hello.client_id, settings.secure_threshold, least)
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

    def join_with(self, examples: int) -> None:
        """Joins again with another number of training examples. The stream of tasks is opened anew."""
        assert self._hello is not None, "join comes first"
        self._hello = replace(self._hello, examples=examples)
        self._join_again(self._session)

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
        keep_freed_memory()
        with (
            AuxiliaryDownload(folder, announced) as download,
            progress("downloading the auxiliary model", announced.size_bytes, "bytes") as advance,
        ):
            advance(download.fetched_bytes)
            for _ in range(DOWNLOAD_ATTEMPTS):
                while not download.done and download.fetched_bytes < announced.size_bytes:
                    try:
                        self._patience.call(lambda: self._pull(download, advance))
                    except (SessionUnknown, SessionEvicted):
                        self._patience.call(self._join)
                try:
                    return download.path if download.done else download.finish()
                except ChecksumMismatch as error:
                    log.warning("%s; downloading it again", error)
        raise ChecksumMismatch("the auxiliary model is not the announced one", where="auxiliary", fix="a new run")

    def _pull(self, download: AuxiliaryDownload, advance: Advance) -> None:
        """Adds the bytes of one call to the download. Raises if there are none."""
        before = download.fetched_bytes
        request = pb.GetAuxiliaryRequest(session=self._session, offset=before)
        stream = self._stub.GetAuxiliary(request)
        silence = SilenceTimer(stream, self._heartbeat_seconds)
        try:
            while True:
                with silence:
                    response = next(stream, None)
                if response is None:
                    break
                if response.offset != download.fetched_bytes or not response.data:
                    what, fix = f"a part at byte {response.offset}", f"{download.fetched_bytes}"
                    raise InvalidRequest(what, where="GetAuxiliaryResponse.offset", fix=fix)
                download.add(response.data)
                advance(len(response.data))
        except (grpc.RpcError, ChecksumMismatch) as error:
            if download.fetched_bytes == before and isinstance(error, grpc.RpcError):
                raise
            log.info("the auxiliary model stopped at byte %d", download.fetched_bytes)
        else:
            if download.fetched_bytes == before:
                what = f"the coordinator's auxiliary model ends at byte {before}"
                raise InvalidInput(
                    what, where="auxiliary", fix="the file that the coordinator announced when it started"
                )
        finally:
            silence.end()
            stream.cancel()

    def tasks(self) -> Iterator[Task]:
        try:
            while (task := self._next_task()) is not None:
                yield task
        finally:
            self._close()

    def _next_task(self) -> Task | None:
        """Returns the next task, or None if the run has ended. Joins again if the stream was lost."""
        while True:
            problem: FedbbptError
            try:
                while not self._arrived and not self._finished:
                    self._receive()
                if not self._arrived:
                    return None
                header, arrays = self._arrived.popleft()
                task = coordinator_messages.task(header, self._broadcast(header, arrays))
                if self._arrived:  # a newer task says that others have overtaken this client
                    log.info("round %d: over before its task was begun", task.id.round)
                    continue
                return task
            except CannotReplay as reason:
                log.warning("%s; it gets each broadcast whole from now on", reason)
                self._search = None
                self._close()
                continue
            except grpc.RpcError as error:
                problem = from_rpc_error(error, CoordinatorUnavailable)
            except (CoordinatorUnavailable, ChecksumMismatch) as error:
                problem = error
            session = self._session_of_stream
            self._close()
            if isinstance(problem, RunFinished):
                return None
            # The link itself may have evicted the stream's session, by joining again during a submit.
            replaced = isinstance(problem, SessionEvicted) and session != self._session
            if not (replaced or isinstance(problem, (Unavailable, SessionUnknown, ChecksumMismatch))):
                raise problem
            log.info("the stream of tasks ended (%s); joining again", problem)
            try:
                self._join_again(session)
            except RunFinished:
                return None

    def _receive(self) -> Receipt | None:
        """Reads one response of the stream, which it opens if there is none. Returns the receipt in it, if any."""
        response = self._opened().read()
        if response is None:
            raise CoordinatorUnavailable("the stream ended before the run did")
        if response.HasField("secure"):
            self._take_secure(secure_messages.from_server(response.secure))
        kind = response.WhichOneof("event")
        if kind == "finished":
            self._finished = True
        elif kind == "task":
            assembler = Assembler(response.task.arrays, self._max_update_bytes)
            self._incomplete = response.task, assembler
        elif kind == "chunk":
            if self._incomplete is None:
                raise InvalidRequest("a chunk without a task", where="TakePartResponse.chunk")
            self._incomplete[1].add(response.chunk)
        if self._incomplete is not None and self._incomplete[1].complete:
            header, assembler = self._incomplete
            self._incomplete = None
            self._arrived.append((header, assembler.arrays()))
        return coordinator_messages.receipt(response.receipt) if response.receipt else None

    def _opened(self) -> TaskStream:
        """Returns the stream, which it opens if there is none."""
        if self._stream is None:
            opening = pb.Opening(session=self._session)
            if self._search is not None:
                opening.replays, opening.state = True, self._search.digest
            self._session_of_stream = opening.session
            self._stream = TaskStream(self._stub, opening, self._heartbeat_seconds, self._call_seconds)
            if self._secure is not None:
                self._stream.say(secure_messages.secure_request(self._secure.keys))
        return self._stream

    def _take_secure(self, message: FromServer) -> None:
        if self._secure is None or self._stream is None:
            what = "secure aggregation in a run without it"
            raise InvalidRequest(what, where="TakePartResponse.secure", fix="JoinResponse.secure")
        for reply in self._secure.take(message):
            self._stream.say(secure_messages.secure_request(reply))

    def _close(self) -> None:
        """Closes the stream, if there is one. The next one repeats what it has brought in vain."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._incomplete = None, None
        self._arrived.clear()

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
        apart = self._submits_apart or bool(data)
        short = announced if apart else unlabelled(update.arrays)

        def send() -> Receipt:
            nonlocal short
            assert self._hello is not None, "join comes first"
            own = {"run_id": self._run_id, "client_id": self._hello.client_id}
            session = self._session if apart else ""
            header = coordinator_messages.update_header(session, task_id, update, short, **own)
            short = announced  # if it is not understood, it is sent with the descriptions of its arrays
            return self._send_chunks(header, data) if apart else self._exchange(header)

        if self._secure is not None:
            send = partial(self._exchange_masked, self._secure, task_id.round, update)
            apart = False

        while True:
            session = self._session
            try:
                receipt = self._patience.call(send, (CoordinatorUnavailable, ChecksumMismatch))
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
            else:
                if not apart:
                    self._forget(task_id)
                return receipt

    def _forget(self, task_id: TaskId) -> None:
        """Drops an answered task that a stream has repeated, because it was opened to answer it."""
        if any(header.id.round == task_id.round for header, _ in self._arrived):
            waiting = [each for each in self._arrived if coordinator_messages.task_id(each[0].id) != task_id]
            self._arrived = deque(waiting)

    def _exchange(self, header: pb.UpdateHeader) -> Receipt:
        """Sends an update on the stream, and reads up to its receipt."""
        return self._awaited(lambda stream: stream.submit(header))

    def _exchange_masked(self, secure: "SecureClient", round: int, update: Update) -> Receipt:
        """Takes part in the sum of a round with this answer, and reads up to its receipt."""

        def say(stream: TaskStream) -> None:
            replies = secure.answer(round, update.arrays[VALUES].view(np.uint64)) or [Waiting(round)]
            for reply in replies:
                stream.say(secure_messages.secure_request(reply))

        return self._awaited(say)

    def _awaited(self, send: Callable[[TaskStream], None]) -> Receipt:
        """Sends an answer on the stream, and reads up to its receipt."""
        if self._finished:
            return Receipt.TOO_LATE
        try:
            send(self._opened())
            if self._search is not None:
                self._search.draw_ahead()  # the coordinator answers meanwhile
            while (receipt := self._receive()) is None:
                if self._finished:
                    return Receipt.TOO_LATE
            return receipt
        except BaseException:
            self._close()
            raise

    def _send_chunks(self, header: pb.UpdateHeader, data: bytes) -> Receipt:
        def parts() -> Iterator[pb.StreamUpdateRequest]:
            yield pb.StreamUpdateRequest(header=header)
            for chunk in chunks(data):
                yield pb.StreamUpdateRequest(chunk=chunk)

        return coordinator_messages.receipt(self._stub.StreamUpdate(parts(), timeout=self._call_seconds).receipt)

    def leave(self) -> None:
        self._close()
        self._patience.call(
            lambda: self._stub.Leave(pb.LeaveRequest(session=self._session), timeout=self._call_seconds)
        )
