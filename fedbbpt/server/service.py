"""The gRPC services of a coordinator. Waiting and time are here, and nowhere else on the server.

The coordinator is called on the event loop itself, never from a thread. So there is one writer, and no call waits for a
lock. A call costs a synchronous commit, and the last call of a round a step of the method too: milliseconds, against
heartbeats of seconds. Updates that arrive shortly after each other share one commit.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedbbpt.errors import (
    ChecksumMismatch,
    InvalidRequest,
    InvalidTensor,
    NotPermitted,
    SessionEvicted,
    SessionUnknown,
)
from fedbbpt.host.allocator import keep_freed_memory
from fedbbpt.identity.callers import Caller
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token
from fedbbpt.limits import AUXILIARY_CHUNK_BYTES, AUXILIARY_CHUNKS_READ, MAX_CONCURRENT_CALLS, MAX_STATUS_CHARACTERS
from fedbbpt.methods import SETTINGS
from fedbbpt.secure.messages import Masked, Waiting
from fedbbpt.server.client_stream import ClientStream
from fedbbpt.server.enrolment_service import EnrolmentServer, EnrolmentService, serve_enrolment
from fedbbpt.server.hosted_run import HostedRun, Submission
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.operator_service import RunService, check_joins
from fedbbpt.server.runs import Runs
from fedbbpt.types import OWNER, Arrays, Hello, PtmIdentity
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import coordinator_pb2_grpc, enrolment_pb2_grpc, run_pb2, run_pb2_grpc
from fedbbpt.wire.channel import bind, by_name, create_server
from fedbbpt.wire.interceptors import CallInterceptor, current_caller
from fedbbpt.wire.messages import coordinator_messages, secure_messages
from fedbbpt.wire.reflection import add_reflection
from fedbbpt.wire.tensors import Assembler, labelled
from fedbbpt.wire.tls import ServerCertificates, ServerTls

if TYPE_CHECKING:  # few coordinators sign certificates
    from fedbbpt.identity.authority import Authority

COORDINATOR_SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
RUN_SERVICE = run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name
HEARTBEAT_SECONDS = 10.0
WATCH_SECONDS = 0.25
"""The shortest time between two messages to a watcher, so that watching costs little however fast the rounds are."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


def _labelled(coordinator: HostedRun, header: pb.UpdateHeader) -> Arrays:
    """Returns the arrays of an update without descriptions. Raises MessageTooLarge, InvalidTensor, ChecksumMismatch."""
    try:
        return labelled(header.arrays, coordinator.forms, coordinator.settings.max_update_bytes)
    except (InvalidTensor, ChecksumMismatch):
        if coordinator.counts(header.id.round):
            raise
        return {}  # another round may have had other arrays, and the receipt says that it is over


def _check_own_name(client_id: str, caller: Caller) -> None:
    """Raises NotPermitted if the client has another name than its credentials."""
    if client_id == OWNER and Role.OWNER not in caller.roles:
        raise NotPermitted("the name of the model's owner", where=OWNER, fix="credentials of the role owner")
    own = OWNER if caller.roles == {Role.OWNER} else caller.name
    if own and client_id != own:
        what = f"these credentials belong to {own}"
        raise NotPermitted(what, where=client_id, fix=f"--name {own}, or that client's own credentials")


async def at_once(hello: Hello) -> None:
    """Lets a client join at once."""


def _parts(file: BinaryIO) -> list[bytes]:
    """Returns the next parts of an auxiliary model, each a serialised GetAuxiliaryResponse; none at the end."""
    parts = []
    for _ in range(AUXILIARY_CHUNKS_READ):
        offset = file.tell()
        if not (data := file.read(AUXILIARY_CHUNK_BYTES)):
            break
        parts.append(pb.GetAuxiliaryResponse(offset=offset, data=data).SerializeToString())
    return parts


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The rpcs of the clients; coordinator.proto documents them."""

    def __init__(
        self, runs: Runs, heartbeat_seconds: float, before_join: Callable[[Hello], Awaitable[None]] = at_once
    ) -> None:
        self._runs, self._heartbeat_seconds, self._before_join = runs, heartbeat_seconds, before_join
        self._reading: set[asyncio.Task[None]] = set()
        self._streams: dict[ClientStream, Caller] = {}

    def end_streams(self, admits: Callable[[Caller], bool]) -> None:
        """Ends streams of tasks whose credentials are no longer valid. A client with new ones joins again."""
        for stream, caller in self._streams.items():
            if not admits(caller):
                what = f"the credentials of {caller.name} are no longer valid"
                stream.answer(SessionUnknown(what, where="session", fix="join again with valid ones"))

    def _run(self, session: str, context: Context) -> tuple[LiveRun, str]:
        """Returns the run of a session, whose connection counts as the run's, and the coordinator's own session.

        A session is of use to nobody but the client that joined with it, whoever else learns it.

        Raises SessionUnknown, SessionEvicted, NotPermitted.
        """
        run, own = self._runs.of_session(session)
        _check_own_name(run.coordinator.client_of(own), current_caller())
        run.traffic.register(context.peer())
        return run, own

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        hello = coordinator_messages.hello(request)
        _check_own_name(hello.client_id, current_caller())
        await self._before_join(hello)
        run = self._runs.named(request.run)
        check_joins(run, current_caller())
        run.traffic.register(context.peer())
        own, settings = await run.join(hello)
        return coordinator_messages.join_response(
            self._runs.session(run, own), run.name, settings, self._heartbeat_seconds, SETTINGS
        )

    async def GetAuxiliary(  # type: ignore[override]  # yields messages that a thread has serialised
        self, request: pb.GetAuxiliaryRequest, context: Context
    ) -> AsyncIterator[bytes]:
        run, _ = self._run(request.session, context)
        announced, offset = run.coordinator.settings.auxiliary, request.offset
        if run.auxiliary is None or announced is None:
            raise InvalidRequest("this run has no auxiliary model", where="session", fix="what Join announced")
        if not 0 <= offset <= announced.size_bytes:
            raise InvalidRequest(f"{offset}", where="offset", fix=f"from 0 to {announced.size_bytes}")
        keep_freed_memory()
        with run.auxiliary.open("rb") as file:
            file.seek(offset)
            # The next parts are read and serialised while gRPC sends these. A thread for each part costs more than it.
            coming = asyncio.create_task(asyncio.to_thread(_parts, file))
            while parts := await coming:
                coming = asyncio.create_task(asyncio.to_thread(_parts, file))
                for part in parts:
                    yield part

    async def TakePart(  # type: ignore[override]  # writes messages that are serialised already, for all clients at once
        self, request_iterator: AsyncIterator[pb.TakePartRequest], context: Context
    ) -> None:
        first = await anext(aiter(request_iterator), pb.TakePartRequest())
        if first.WhichOneof("part") != "opening":
            raise InvalidRequest("a stream without an opening", where="part", fix="an opening first")
        run, session = self._run(first.opening.session, context)
        held = first.opening.state if first.opening.replays else None
        stream = ClientStream(run, session, held, self._heartbeat_seconds)
        with run.notifying() as coordinator:
            coordinator.connected(session)
        # Never cancelled: gRPC would write the message that is being read into memory that is free by then. It ends
        # with the call, as reading does then.
        reading = asyncio.create_task(_read_updates(run, session, request_iterator, stream))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        self._streams[stream] = current_caller()
        try:
            await stream.send(context.write)
        finally:
            del self._streams[stream]
            with run.notifying() as coordinator:
                coordinator.disconnected(session)

    async def StreamUpdate(
        self, request_iterator: AsyncIterator[pb.StreamUpdateRequest], context: Context
    ) -> pb.StreamUpdateResponse:
        run: LiveRun | None = None
        session = ""
        header: pb.UpdateHeader | None = None
        assembler: Assembler | None = None
        async for request in request_iterator:
            part = request.WhichOneof("part")
            if part == "header" and header is None:
                header = request.header
                run, session = self._run(header.session, context)  # before any bytes of a stranger are buffered
                _check_in_the_clear(run)
                assembler = Assembler(header.arrays, run.coordinator.settings.max_update_bytes)
            elif part == "chunk" and assembler is not None:
                assembler.add(request.chunk)
            else:
                raise InvalidRequest(f"part {part!r}", where="part", fix="one header first, and then chunks")
        if run is None or header is None or assembler is None:
            raise InvalidRequest("an empty stream", where="header", fix="one header first, and then chunks")
        receipt = await run.submit(_submission(run, session, header, assembler.arrays()))
        return pb.StreamUpdateResponse(receipt=coordinator_messages.receipt_code(receipt))

    async def ReportTrouble(self, request: pb.ReportTroubleRequest, context: Context) -> pb.ReportTroubleResponse:
        run, session = self._run(request.session, context)
        with run.notifying() as coordinator:
            coordinator.report_trouble(session, request.text, time.time(), run.now())
        return pb.ReportTroubleResponse()

    async def ReportPtm(self, request: pb.ReportPtmRequest, context: Context) -> pb.ReportPtmResponse:
        run, session = self._run(request.session, context)
        for field in ("model", "revision", "precision"):
            if len(getattr(request, field)) > MAX_STATUS_CHARACTERS:
                raise InvalidRequest("too long", where=field, fix=f"at most {MAX_STATUS_CHARACTERS} characters")
        with run.notifying() as coordinator:
            coordinator.report_ptm(session, PtmIdentity(request.model, request.revision, request.precision))
        return pb.ReportPtmResponse()

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        try:
            run, session = self._run(request.session, context)
        except (SessionUnknown, SessionEvicted):
            return pb.LeaveResponse()
        with run.notifying() as coordinator:
            coordinator.leave(session, run.now())
        for stream in self._streams:
            stream.end_of(run, session)
        return pb.LeaveResponse()


async def _read_updates(
    run: LiveRun, session: str, requests: AsyncIterator[pb.TakePartRequest], stream: ClientStream
) -> None:
    """Submits each update of a stream, until the client sends no more."""
    try:
        async for request in requests:
            part = request.WhichOneof("part")
            if part == "update":
                run.coordinator.client_of(session)
                _check_in_the_clear(run)
                arrays = _arrays(run.coordinator, request.update)
                run.submit_then(_submission(run, session, request.update, arrays), stream.answer)
            elif part == "secure":
                message = secure_messages.from_client(request.secure)
                run.take_secure(session, message)
                if isinstance(message, Masked | Waiting):
                    stream.masked(message.round)
            elif part != "heartbeat":
                raise InvalidRequest(f"part {part!r}", where="part", fix="an update or a heartbeat")
    except Exception as error:
        stream.answer(error)


def _check_in_the_clear(run: LiveRun) -> None:
    if run.coordinator.secure is not None:
        what, fix = "an update in the clear in a run with secure aggregation", "a masked answer, in `secure`"
        raise InvalidRequest(what, where="update", fix=fix)


def _arrays(coordinator: HostedRun, header: pb.UpdateHeader) -> Arrays:
    """Returns the arrays of an update that holds them. Raises MessageTooLarge, InvalidTensor, ChecksumMismatch."""
    if header.arrays.data and not header.arrays.tensors:
        return _labelled(coordinator, header)
    return Assembler(header.arrays, coordinator.settings.max_update_bytes).arrays()


def _submission(run: LiveRun, session: str, header: pb.UpdateHeader, arrays: Arrays) -> Submission:
    task_id, coordinator = coordinator_messages.task_id(header.id), run.coordinator
    task_id = replace(
        task_id,
        run_id=task_id.run_id or coordinator.settings.run_id,
        client_id=task_id.client_id or coordinator.client_of(session),
    )
    return Submission(session, task_id, coordinator_messages.update(header, arrays))


@dataclass(frozen=True, slots=True)
class CoordinatorServer:
    """A started gRPC server of a coordinator."""

    server: grpc.aio.Server
    port: int
    runs: Runs
    guard: CallInterceptor
    certificates: ServerCertificates | None
    clients: CoordinatorService
    authority: "Authority | None" = None
    enrolment: EnrolmentServer | None = None

    @property
    def ended(self) -> "asyncio.Task[None]":
        """Done when the only run has ended. Raises the error of a coordinator that failed."""
        return next(iter(self.runs)).time_kept

    def reload(self, tokens: Sequence[Token] | None) -> None:
        """Reads the TLS files again, and accepts these tokens in place of the old, whose streams end.

        Raises InvalidInput.
        """
        if self.certificates is not None:
            self.certificates.reload()
        if self.enrolment is not None:
            self.enrolment.certificates.reload()
        self.guard.accept(tokens, self.authority.revoked() if self.authority else ())
        self.clients.end_streams(self.guard.admits)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no more calls; open streams have `grace_seconds` to receive the end of the run."""
        for run in self.runs:
            run.time_kept.cancel()
        if self.enrolment is not None:
            await self.enrolment.server.stop(0.0)
        await self.server.stop(grace_seconds)


async def serve(
    runs: Runs,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
    tokens: Sequence[Token] | None = None,
    authority: "Authority | None" = None,
    enrol_port: int | None = None,
    insecure: bool = False,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    watch_seconds: float = WATCH_SECONDS,
    before_join: Callable[[Hello], Awaitable[None]] = at_once,
) -> CoordinatorServer:
    """Starts a server for the clients and the operators of runs, with health checks and reflection.

    Args:
        runs: the runs.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        tls: the server's certificate and key; None serves without TLS.
        tokens: the members' bearer tokens; with None and without a client authority, everybody may call everything.
        authority: the authority of the members' certificates, whose own is the client authority of `tls`.
        enrol_port: the port on which new members get certificates, or 0 for a free one; None: there is none.
        insecure: whether to serve without TLS on an address that other machines can reach.
        heartbeat_seconds: the longest silence of a stream of tasks, and of one to a watcher.
        watch_seconds: the shortest time between two messages to a watcher.
        before_join: awaited before a client joins. It may wait until there is a run, and raises to refuse the client.

    Raises:
        InvalidInput: a TLS file is invalid.
        PortTaken: another process listens on the port.
        InsecureAddress: other machines can reach the address, there is no TLS, and `insecure` is false.
    """
    certificates = ServerCertificates(tls) if tls else None
    certified = tls is not None and tls.client_ca is not None
    guard = CallInterceptor(MAX_CONCURRENT_CALLS, tokens, runs.caller, certificates=certified)
    if authority is not None:
        guard.accept(tokens, authority.revoked())
    server = create_server(host, guard)
    service = CoordinatorService(runs, heartbeat_seconds, before_join)
    # Come before the generated handlers, which would serialise messages that have been serialised.
    serialised: dict[str, Any] = {
        "TakePart": grpc.stream_stream_rpc_method_handler(service.TakePart, pb.TakePartRequest.FromString),
        "GetAuxiliary": grpc.unary_stream_rpc_method_handler(service.GetAuxiliary, pb.GetAuxiliaryRequest.FromString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(COORDINATOR_SERVICE, serialised),))
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(service, by_name(server))
    run_service = RunService(runs, watch_seconds, heartbeat_seconds)
    run_pb2_grpc.add_RunServiceServicer_to_server(run_service, by_name(server))
    if authority is not None:
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentService(authority), by_name(server))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, by_name(server))
    names = (COORDINATOR_SERVICE, RUN_SERVICE)
    for name in names:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    add_reflection([*names, health.SERVICE_NAME], server)
    bound = bind(server, host, port, certificates, insecure=insecure)
    enrolment = None
    if authority is not None and tls is not None and enrol_port is not None:
        enrolment = await serve_enrolment(authority, host, enrol_port, tls)
    await server.start()
    for run in runs:
        run.start()
    return CoordinatorServer(server, bound, runs, guard, certificates, service, authority, enrolment)
