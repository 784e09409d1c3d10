"""The mock coordinator: it gives one client its tasks, lets faults happen, and notes what the protocol forbids."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from fedbbpt.conformance.client.black_box import Happen
from fedbbpt.conformance.client.cases import Fault
from fedbbpt.conformance.client.findings import Findings
from fedbbpt.conformance.client.updates import Sent
from fedbbpt.errors import FedbbptError, InvalidRequest, SessionEvicted, SessionUnknown
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import tensor_pb2
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceServicer

CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
MAX_KEY = 128


@dataclass
class Given:
    """A task that the client has to answer."""

    header: pb.TaskHeader
    data: bytes
    """The arrays, if they travel in chunks."""
    chunk_bytes: int
    receipt: pb.Receipt.ValueType
    faults: list[Fault]
    corrupt: bool = False
    sent: list[Sent] = field(default_factory=list)
    """The updates that answer it, in the order in which they came."""
    pairs: int | None = None
    """Number of pairs that the PTM had scored for the task when its first update came."""
    done: bool = False
    """Whether the client has got a receipt, or needs none."""

    def messages(self) -> list[pb.TakePartResponse]:
        """Returns the task as it travels. The first copy may be corrupt."""
        header = pb.TaskHeader()
        header.CopyFrom(self.header)
        if self.corrupt:
            self.corrupt = False
            header.arrays.crc32c ^= 1
        found = [pb.TakePartResponse(task=header)]
        for start in range(0, len(self.data), self.chunk_bytes or 1):
            part = self.data[start : start + self.chunk_bytes]
            chunk = tensor_pb2.TensorChunk(offset=start, data=part, crc32c=google_crc32c.value(part))
            found.append(pb.TakePartResponse(chunk=chunk))
        return found


@dataclass
class OpenStream:
    """One open TakePart."""

    queue: "asyncio.Queue[pb.TakePartResponse | Exception]" = field(default_factory=asyncio.Queue)
    silent: bool = False


class MockCoordinator(CoordinatorServiceServicer):
    """Implements CoordinatorService for one client, in one trial."""

    def __init__(self, response: pb.JoinResponse, faults: list[Fault], findings: Findings) -> None:
        self.response, self.faults, self._findings = response, faults, findings
        self.happen: Happen | None = None
        self.given: Given | None = None
        self.ended: pb.Finished | None = None
        self.request: pb.JoinRequest | None = None
        """The first JoinRequest."""
        self.joined = 0
        self.join_times: list[float] = []
        """When Join was called, with or without success."""
        self.opened = 0
        self.heartbeats = 0
        self.stream: OpenStream | None = None
        self._session = ""
        self._reading: set[asyncio.Task[None]] = set()

    # What the trial does

    def give(self, given: Given) -> None:
        """Gives the client a task."""
        self.given = given
        self._send_task()

    def finish(self, *, stopped: bool) -> None:
        """Ends the run."""
        self.ended = pb.Finished(stopped=stopped)
        if self.stream is not None:
            self.stream.queue.put_nowait(pb.TakePartResponse(finished=self.ended))

    def forget(self) -> None:
        """Ends the session, as an eviction does, or a restart of the coordinator."""
        self._session = ""

    def break_stream(self, error: FedbbptError) -> None:
        """Ends the open stream of tasks with an error."""
        if self.stream is not None:
            self.stream.queue.put_nowait(error)
            self.stream = None

    # Calls of the client

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinResponse:
        self.join_times.append(asyncio.get_running_loop().time())
        self._check_join(request)
        self.request = self.request or request
        self._findings.changed()
        await self._meet("join", self.faults)
        if self.given is not None:
            await self._meet("join", self.given.faults)
        if self.stream is not None:
            self.stream.queue.put_nowait(SessionEvicted("the client has joined again", where="session"))
            self.stream = None
        self.joined += 1
        self._session = f"session-{self.joined}"
        answer = pb.JoinResponse()
        answer.CopyFrom(self.response)
        answer.session = self._session
        self._findings.changed()
        return answer

    def _check_join(self, request: pb.JoinRequest) -> None:
        wrong = self._findings.broken
        if request.protocol_version != 1:
            wrong(f"JoinRequest.protocol_version is {request.protocol_version}; expected 1")
        if not CLIENT_ID.fullmatch(request.client_id):
            wrong(f"JoinRequest.client_id is {request.client_id!r}; expected 1 to 128 letters, digits, . _ - @")
        if not (0 < len(request.client_key) <= MAX_KEY and request.client_key.isprintable()):
            wrong("JoinRequest.client_key is not 1 to 128 printable characters")
        if request.examples < 1:
            wrong(f"JoinRequest.examples is {request.examples}; expected the number of training examples")
        if not request.codecs or pb.CODEC_UNSPECIFIED in request.codecs:
            wrong("JoinRequest.codecs does not list the links that the client can encode")
        if request.relay:
            wrong("JoinRequest.relay is set, and this client is none")
        if self.request is not None and request.client_id != self.request.client_id:
            wrong(f"the client joins again as {request.client_id}; it was {self.request.client_id}")
        elif self.request is not None and request.client_key != self.request.client_key:
            wrong("the client joins again with another client_key")

    def _check_session(self, session: str) -> None:
        if session == self._session and session:
            return
        number = session.removeprefix("session-")
        if self._session and number.isdigit() and int(number) <= self.joined:
            raise SessionEvicted("a later Join has replaced this session", where="session")
        raise SessionUnknown("this session is not known", where="session", fix="join again")

    async def TakePart(
        self, requests: AsyncIterator[pb.TakePartRequest], context: Any
    ) -> AsyncIterator[pb.TakePartResponse]:
        first = await anext(aiter(requests), pb.TakePartRequest())
        if first.WhichOneof("part") != "opening":
            self._findings.broken("a stream of tasks does not begin with an opening")
            raise InvalidRequest("a stream without an opening", where="part", fix="an opening first")
        self.opened += 1
        self._findings.changed()
        await self._meet("open", self.faults)
        if self.given is not None:
            await self._meet("open", self.given.faults)
        self._check_session(first.opening.session)
        stream = self.stream = OpenStream()
        # Not cancelled: it ends with the call.
        reading = asyncio.create_task(self._read(requests, stream))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        if self.ended is not None:
            self.finish(stopped=self.ended.stopped)
        else:
            self._send_task()
        self._findings.changed()
        seconds = self.response.heartbeat.ToTimedelta().total_seconds()
        try:
            while True:
                try:
                    message = await asyncio.wait_for(stream.queue.get(), seconds)
                except TimeoutError:
                    message = pb.TakePartResponse(heartbeat=pb.Heartbeat())
                if isinstance(message, Exception):
                    raise message
                if stream.silent:
                    continue
                yield message
                if message.HasField("finished"):
                    return
        finally:
            if self.stream is stream:
                self.stream = None
            self._findings.changed()

    def _send_task(self) -> None:
        if self.given is not None and not self.given.done and self.stream is not None:
            for message in self.given.messages():
                self.stream.queue.put_nowait(message)

    async def _read(self, requests: AsyncIterator[pb.TakePartRequest], stream: OpenStream) -> None:
        try:
            async for request in requests:
                part = request.WhichOneof("part")
                if part == "heartbeat":
                    self.heartbeats += 1
                    self._findings.changed()
                elif part == "update":
                    receipt = await self._take(Sent.whole(request.update))
                    stream.queue.put_nowait(pb.TakePartResponse(receipt=receipt))
                else:
                    self._findings.broken(f"the stream of tasks has a request {part!r} after its opening")
        except Exception as error:
            stream.queue.put_nowait(error)

    async def StreamUpdate(
        self, requests: AsyncIterator[pb.StreamUpdateRequest], context: Any
    ) -> pb.StreamUpdateResponse:
        sent: Sent | None = None
        async for request in requests:
            if request.WhichOneof("part") == "header":
                self._check_session(request.header.session)
                sent = Sent.whole(request.header)
                sent.apart = True
            elif sent is None:
                self._findings.broken("StreamUpdate begins with a chunk; expected a header")
            elif problem := sent.add(request.chunk):
                self._findings.broken(problem)
        if sent is None:
            raise InvalidRequest("a StreamUpdate without a header", where="part", fix="a header first")
        return pb.StreamUpdateResponse(receipt=await self._take(sent))

    async def _take(self, sent: Sent) -> pb.Receipt.ValueType:
        """Notes an update, lets a fault happen, and returns its receipt."""
        given = self.given
        if given is None:
            self._findings.broken("an update came before any task")
            raise InvalidRequest("no task", where="update")
        known = given.header.id
        run_id, client_id = sent.header.id.run_id or known.run_id, sent.header.id.client_id or known.client_id
        if (sent.header.id.round, run_id, client_id) != (known.round, known.run_id, known.client_id):
            # A copy of an answer to an earlier task is safe; anything else is not.
            if sent.header.id.round >= known.round or run_id != known.run_id or client_id != known.client_id:
                self._findings.broken(f"an update answers {sent.header.id}, which is no task")
            return pb.RECEIPT_DUPLICATE
        given.sent.append(sent)
        self._findings.changed()
        await self._meet("update", given.faults)
        repeated = given.done or any(one.counted for one in given.sent[:-1])
        sent.counted = given.done = True
        self._findings.changed()
        if repeated and given.receipt == pb.RECEIPT_COUNTED:
            return pb.RECEIPT_DUPLICATE
        return given.receipt

    async def _meet(self, at: str, faults: list[Fault]) -> None:
        """Lets the next fault at this call happen. Raises its error, if that is what it is."""
        due = next((fault for fault in faults if fault.at == at), None)
        if due is None or self.happen is None:
            return
        faults.remove(due)
        if at == "update" and due.counted and self.given is not None:
            self.given.sent[-1].counted = True
        await self.happen(due)

    async def ReportTrouble(self, request: pb.ReportTroubleRequest, context: Any) -> pb.ReportTroubleResponse:
        self._check_session(request.session)
        return pb.ReportTroubleResponse()

    async def ReportPtm(self, request: pb.ReportPtmRequest, context: Any) -> pb.ReportPtmResponse:
        self._check_session(request.session)
        return pb.ReportPtmResponse()

    async def GetAuxiliary(
        self, request: pb.GetAuxiliaryRequest, context: Any
    ) -> AsyncIterator[pb.GetAuxiliaryResponse]:
        raise InvalidRequest("this run has no auxiliary model", where="session", fix="what Join announced")
        yield

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        return pb.LeaveResponse()
