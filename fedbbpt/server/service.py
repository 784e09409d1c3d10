"""The gRPC services of a coordinator. Waiting and time are here, and nowhere else on the server.

The coordinator is called on the event loop itself, never from a thread. So there is one writer, and no call waits for a
lock. A call costs a synchronous commit, and the last call of a round a step of the method too: milliseconds, against
heartbeats of seconds. Updates that arrive shortly after each other share one commit.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedbbpt.errors import InvalidRequest, StoreError
from fedbbpt.limits import CHUNK_BYTES, MAX_CONCURRENT_CALLS
from fedbbpt.methods import SETTINGS
from fedbbpt.methods.replay import Told
from fedbbpt.server.backup_folder import BackupFolder
from fedbbpt.server.coordinator import Coordinator, Submission
from fedbbpt.types import Arrays, Receipt, RunState, Task, TaskId, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import coordinator_pb2_grpc, run_pb2, run_pb2_grpc
from fedbbpt.wire.channel import bind, create_server
from fedbbpt.wire.interceptors import CallInterceptor
from fedbbpt.wire.messages import coordinator_messages, operator_messages
from fedbbpt.wire.messages.coordinator_messages import SharedTask
from fedbbpt.wire.messages.operator_messages import Progress
from fedbbpt.wire.tensors import Assembler, chunk
from fedbbpt.wire.tls import ServerCertificates, ServerTls
from fedbbpt.wire.traffic import TrafficMeter

COORDINATOR_SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
RUN_SERVICE = run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name
HEARTBEAT_SECONDS = 10.0
GATHER_SECONDS = 0.01
"""How long an update may wait for others to share its commit. It delays no round: the last update waits for none."""
WATCH_SECONDS = 0.25
"""The shortest time between two messages to a watcher, so that watching costs little however fast the rounds are."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class LiveRun:
    """A coordinator on this event loop, with events for the coroutines that wait for it to change."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.status_changed = asyncio.Event()
        """Set at the next change of the status, and then replaced. Take it before you read the status."""
        self.tasks_changed = asyncio.Event()
        """Set at the next change of a client's task, and then replaced. Take it before you read the task."""
        self.ended = asyncio.Event()
        """Set when the run has ended."""
        self._status_version, self._tasks_version = coordinator.status_version, coordinator.tasks_version
        self._arrived: list[tuple[Submission, asyncio.Future[Receipt]]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._broadcast: Arrays = {}
        self._tasks: dict[bytes | None, SharedTask] = {}

    @staticmethod
    def now() -> float:
        """Returns the time on the event loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    @contextmanager
    def notifying(self) -> Iterator[Coordinator]:
        """Gives the coordinator to call, and then sets the events of everything that the calls have changed."""
        try:
            yield self.coordinator
        finally:
            if self._tasks_version != self.coordinator.tasks_version:
                self._tasks_version = self.coordinator.tasks_version
                self.tasks_changed.set()
                self.tasks_changed = asyncio.Event()
                if self.coordinator.state.ended:
                    self.ended.set()
            if self._status_version != self.coordinator.status_version:
                self._status_version = self.coordinator.status_version
                self.status_changed.set()
                self.status_changed = asyncio.Event()

    async def submit(self, submission: Submission) -> Receipt:
        """Submits an update together with others that arrive within GATHER_SECONDS, or at once if the round has all.

        Raises what `Coordinator.submit` raises.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Receipt] = loop.create_future()
        self._arrived.append((submission, answer))
        if len(self._arrived) >= self.coordinator.missing:
            self._submit_all()
        elif self._gathering is None:
            self._gathering = loop.call_later(GATHER_SECONDS, self._submit_all)
        return await answer

    def _submit_all(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        arrived, self._arrived, self._gathering = self._arrived, [], None
        answers: Sequence[Receipt | Exception]
        try:
            with self.notifying() as coordinator:
                answers = coordinator.submit_all([submission for submission, _ in arrived], self.now())
        except Exception as error:
            answers = [error] * len(arrived)
        for (_, waiting), answer in zip(arrived, answers, strict=True):
            if waiting.done():
                continue  # the call was cancelled
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    def task_messages(self, task: Task, held: bytes | None) -> Iterator[bytes]:
        """Yields the messages of a client's task, of which all but its id is serialised once for all clients.

        `held` is the digest of the state that the client holds, empty if it has none, or None if it does not replay.
        """
        if self._broadcast is not task.arrays:
            self._broadcast, self._tasks = task.arrays, {}
        told = self.coordinator.told
        if told is None:
            held = None
        elif held not in (None, told.after, told.before):
            held = b""
        if held not in self._tasks:
            self._tasks[held] = _shared_task(task, told, held)
        return self._tasks[held].messages(task.id.client_id)

    async def keep_time(self) -> None:
        """Ticks at each deadline of the coordinator, until the run has ended."""
        with self.notifying() as coordinator:
            coordinator.tick(self.now())
        while not self.coordinator.state.ended:
            status_changed, due = self.status_changed, self.coordinator.next_deadline()
            if due is not None and due <= self.now():
                with self.notifying() as coordinator:
                    coordinator.tick(self.now())
            else:
                await _set_within(status_changed, None if due is None else due - self.now())


def _shared_task(task: Task, told: Told | None, held: bytes | None) -> SharedTask:
    """Returns the task of all clients that hold the same."""
    if told is None or held is None:
        return SharedTask(task)
    if held == told.after:
        return SharedTask(task, {}, (held, told.after))
    return SharedTask(task, told.news if held else told.held, (held, told.after))


async def _set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The rpcs of the clients; coordinator.proto documents them."""

    def __init__(self, run: LiveRun, traffic: TrafficMeter, heartbeat_seconds: float, auxiliary: Path | None) -> None:
        self._run, self._traffic, self._heartbeat_seconds = run, traffic, heartbeat_seconds
        self._auxiliary = auxiliary

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        self._traffic.register(context.peer())
        with self._run.notifying() as coordinator:
            session, settings = coordinator.join(coordinator_messages.hello(request), self._run.now())
        return coordinator_messages.join_response(session, settings, self._heartbeat_seconds, SETTINGS)

    async def GetAuxiliary(
        self, request: pb.GetAuxiliaryRequest, context: Context
    ) -> AsyncIterator[pb.GetAuxiliaryResponse]:
        self._traffic.register(context.peer())
        self._run.coordinator.client_of(request.session)
        announced, offset = self._run.coordinator.settings.auxiliary, request.offset
        if self._auxiliary is None or announced is None:
            raise InvalidRequest("this run has no auxiliary model", where="session", fix="what Join announced")
        if not 0 <= offset <= announced.size_bytes:
            raise InvalidRequest(f"{offset}", where="offset", fix=f"from 0 to {announced.size_bytes}")
        with self._auxiliary.open("rb") as file:
            file.seek(offset)
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield pb.GetAuxiliaryResponse(chunk=chunk(data, offset))
                offset += len(data)

    async def StreamTasks(  # type: ignore[override]  # yields messages that are serialised already, for all clients at once
        self, request: pb.StreamTasksRequest, context: Context
    ) -> AsyncIterator[bytes]:
        self._traffic.register(context.peer())
        with self._run.notifying() as coordinator:
            coordinator.connected(request.session)
        # Not `finally`: a generator that is no longer read runs it only when it is garbage-collected.
        gone = partial(self._disconnected, request.session)
        context.add_done_callback(gone)  # type: ignore[arg-type]  # the stubs ask for a class that grpc does not have
        sent: TaskId | None = None
        held = request.state if request.replays else None
        spoken_at = self._run.now()
        while not coordinator.state.ended:
            tasks_changed, task = self._run.tasks_changed, coordinator.task_for(request.session)
            if task is not None and task.id != sent:
                told = coordinator.told
                for message in self._run.task_messages(task, held):
                    yield message
                sent, spoken_at = task.id, self._run.now()
                if held is not None and told is not None:
                    held = told.after
            # Wait for the rest of the interval only: other clients' tasks must not delay this client's heartbeat.
            elif not await _set_within(tasks_changed, spoken_at + self._heartbeat_seconds - self._run.now()):
                yield pb.StreamTasksResponse(heartbeat=pb.Heartbeat()).SerializeToString()
                spoken_at = self._run.now()
        finished = pb.Finished(stopped=coordinator.state is RunState.STOPPED)
        yield pb.StreamTasksResponse(finished=finished).SerializeToString()

    def _disconnected(self, session: str, context: Context) -> None:
        with self._run.notifying() as coordinator:
            coordinator.disconnected(session)

    async def SubmitUpdate(self, request: pb.SubmitUpdateRequest, context: Context) -> pb.SubmitUpdateResponse:
        self._traffic.register(context.peer())
        header = request.header
        self._run.coordinator.client_of(header.session)
        arrays = Assembler(header.arrays, self._run.coordinator.settings.max_update_bytes).arrays()
        receipt = await self._submit(header, coordinator_messages.update(header, arrays))
        return pb.SubmitUpdateResponse(receipt=coordinator_messages.receipt_code(receipt))

    async def StreamUpdate(
        self, request_iterator: AsyncIterator[pb.StreamUpdateRequest], context: Context
    ) -> pb.StreamUpdateResponse:
        self._traffic.register(context.peer())
        receipt = await self._submit(*await self._read(request_iterator))
        return pb.StreamUpdateResponse(receipt=coordinator_messages.receipt_code(receipt))

    async def _submit(self, header: pb.UpdateHeader, update: Update) -> Receipt:
        task_id, coordinator = coordinator_messages.task_id(header.id), self._run.coordinator
        task_id = replace(
            task_id,
            run_id=task_id.run_id or coordinator.settings.run_id,
            client_id=task_id.client_id or coordinator.client_of(header.session),
        )
        return await self._run.submit(Submission(header.session, task_id, update))

    async def _read(self, requests: AsyncIterator[pb.StreamUpdateRequest]) -> tuple[pb.UpdateHeader, Update]:
        header: pb.UpdateHeader | None = None
        assembler: Assembler | None = None
        async for request in requests:
            part = request.WhichOneof("part")
            if part == "header" and header is None:
                header = request.header
                self._run.coordinator.client_of(header.session)  # before any bytes of a stranger are buffered
                assembler = Assembler(header.arrays, self._run.coordinator.settings.max_update_bytes)
            elif part == "chunk" and assembler is not None:
                assembler.add(request.chunk)
            else:
                raise InvalidRequest(f"part {part!r}", where="part", fix="one header first, and then chunks")
        if header is None or assembler is None:
            raise InvalidRequest("an empty stream", where="header", fix="one header first, and then chunks")
        return header, coordinator_messages.update(header, assembler.arrays())

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        with self._run.notifying() as coordinator:
            coordinator.leave(request.session, self._run.now())
        return pb.LeaveResponse()


class RunService(run_pb2_grpc.RunServiceServicer):
    """The rpcs of the operators; run.proto documents them."""

    def __init__(self, run: LiveRun, watch_seconds: float, backups: BackupFolder | None) -> None:
        self._run, self._watch_seconds, self._backups = run, watch_seconds, backups

    def _status(self) -> run_pb2.Run:
        return operator_messages.run(self._run.coordinator.status())

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:
        return run_pb2.GetRunResponse(run=self._status())

    async def WatchRun(
        self, request: run_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        coordinator, progress, sent = self._run.coordinator, Progress(), max(0, request.since_round)
        while True:
            status_changed, ended = self._run.status_changed, coordinator.state.ended
            news = coordinator.reports(sent)
            sent += len(news)
            yield progress.response(coordinator.status(), news)
            if ended:
                return
            await _set_within(self._run.ended, self._watch_seconds)
            await status_changed.wait()

    async def StopRun(self, request: run_pb2.StopRunRequest, context: Context) -> run_pb2.StopRunResponse:
        with self._run.notifying() as coordinator:
            coordinator.stop(self._run.now())
        return run_pb2.StopRunResponse(run=self._status())

    async def GetResult(self, request: run_pb2.GetResultRequest, context: Context) -> run_pb2.GetResultResponse:
        coordinator = self._run.coordinator
        return operator_messages.get_result_response(coordinator.result(), coordinator.status())

    async def BackupRun(self, request: run_pb2.BackupRunRequest, context: Context) -> run_pb2.BackupRunResponse:
        if self._backups is None:
            raise StoreError("this run has no folder for backups", fix="a coordinator with a store")
        coordinator = self._run.coordinator
        path = self._backups.write(request.file, coordinator.backup)
        data = path.read_bytes()
        return run_pb2.BackupRunResponse(
            file=f"{path.parent.name}/{path.name}",
            size_bytes=len(data),
            sha256=sha256(data).digest(),
            round=coordinator.status().round,
        )


@dataclass(frozen=True, slots=True)
class CoordinatorServer:
    """A started gRPC server of a coordinator."""

    server: grpc.aio.Server
    port: int
    ended: asyncio.Task[None]
    """Done when the run has ended. Raises the error of a coordinator that failed."""
    guard: CallInterceptor
    certificates: ServerCertificates | None

    def reload(self, tokens: Collection[str]) -> None:
        """Reads the TLS files again, and accepts these tokens in place of the old. Raises InvalidInput."""
        if self.certificates is not None:
            self.certificates.reload()
        self.guard.accept(tokens)

    async def stop(self, grace_seconds: float) -> None:
        """Accepts no more calls; open streams have `grace_seconds` to receive the end of the run."""
        self.ended.cancel()
        await self.server.stop(grace_seconds)


async def serve(
    coordinator: Coordinator,
    traffic: TrafficMeter,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
    tokens: Collection[str] = (),
    insecure: bool = False,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    watch_seconds: float = WATCH_SECONDS,
    auxiliary: Path | None = None,
    backups: Path | None = None,
) -> CoordinatorServer:
    """Starts a server for the clients and the operators of a run, with health checks and reflection.

    Args:
        coordinator: the run.
        traffic: the meter that the coordinator reads; the service registers the clients' connections with it.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        tls: the server's certificate and key; None serves without TLS.
        tokens: the bearer tokens that are accepted; empty accepts every caller.
        insecure: whether to serve without TLS on an address that other machines can reach.
        heartbeat_seconds: the longest silence of a stream of tasks.
        watch_seconds: the shortest time between two messages to a watcher.
        auxiliary: the file of the auxiliary model that the run's settings announce.
        backups: the folder for the backups of the run.

    Raises:
        InvalidInput: a TLS file is invalid.
        PortTaken: another process listens on the port.
        InsecureAddress: other machines can reach the address, there is no TLS, and `insecure` is false.
    """
    certificates, guard = ServerCertificates(tls) if tls else None, CallInterceptor(MAX_CONCURRENT_CALLS, tokens)
    run, server = LiveRun(coordinator), create_server(host, guard)
    service = CoordinatorService(run, traffic, heartbeat_seconds, auxiliary)
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(service, server)
    # Replaces the generated handler, which would serialise the messages that StreamTasks has serialised.
    stream_tasks: Any = grpc.unary_stream_rpc_method_handler(service.StreamTasks, pb.StreamTasksRequest.FromString)
    server.add_registered_method_handlers(COORDINATOR_SERVICE, {"StreamTasks": stream_tasks})
    run_pb2_grpc.add_RunServiceServicer_to_server(
        RunService(run, watch_seconds, BackupFolder(backups) if backups else None), server
    )
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (COORDINATOR_SERVICE, RUN_SERVICE)
    for name in names:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    bound = bind(server, host, port, certificates, insecure=insecure)
    await server.start()
    return CoordinatorServer(server, bound, asyncio.create_task(run.keep_time()), guard, certificates)
