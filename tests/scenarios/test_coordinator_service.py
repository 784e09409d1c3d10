"""The coordinator's services, called as a client in any language calls them: with stubs, over a socket."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedbbpt.codecs import CODECS
from fedbbpt.methods import SETTINGS
from fedbbpt.methods.fed_cma import METHOD, FedCmaConfig
from fedbbpt.prompts import space_of
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import COORDINATOR_SERVICE, CoordinatorServer, serve
from fedbbpt.types import (
    Hello,
    Measurement,
    Phase,
    Projection,
    ProjectionKind,
    Receipt,
    RunSettings,
    Task,
    TaskSpec,
    Update,
)
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import run_pb2
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.v1.run_pb2_grpc import RunServiceStub
from fedbbpt.wire.messages import coordinator_messages, operator_messages
from fedbbpt.wire.tensors import Assembler, bundle, chunk
from fedbbpt.wire.traffic import TrafficMeter

SPACE = LatentSpace(5, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""))
CONFIG = FedCmaConfig(step="ranks", population=6)
Spoil: TypeAlias = Callable[[pb.StreamUpdateRequest], object]
MEASURED = Measurement(dev_loss_sum=2.0, dev_examples=4, dev_correct=3, queries=10)


def new_coordinator(traffic: TrafficMeter, clients: int, rounds: int) -> Coordinator:
    task = TaskSpec("{prompt} {text}", ("bad", "good"))
    settings = RunSettings("run-1", task, ("0", "1"), SPACE, METHOD.settings(CONFIG), "float32", rounds, "", "", 1000)
    return Coordinator(
        method_name="fed-cma",
        method=METHOD.server(CONFIG, SPACE),
        codec=CODECS["float32"],
        settings=settings,
        seed=3,
        cohort=CohortRules(clients, quorum=clients, deadline_seconds=300.0),
        store=MemoryStore(),
        traffic=traffic.read,
    )


class Stream:
    """An open TakePart, whose receipts and events can be read apart from each other."""

    def __init__(self, stub: CoordinatorServiceStub, session: str) -> None:
        untyped: Any = stub  # whose type asks for the requests at once
        self._call: Any = untyped.TakePart()
        self._opening: pb.TakePartRequest | None = pb.TakePartRequest(opening=pb.Opening(session=session))
        self._receipts, self._events = deque[Receipt](), deque[Any]()
        self.broken = False
        self.together = False
        """Whether a receipt came in one message with an event."""

    async def _send(self, request: pb.TakePartRequest | None) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            await self._send(opening)
        if request is not None:
            await self._call.write(request)

    async def _receive(self) -> None:
        try:
            await self._send(None)
            response = await self._call.read()
        except grpc.aio.AioRpcError:
            self.broken = True
            raise
        if response is grpc.aio.EOF or response.WhichOneof("event"):
            self._events.append(response)
        if response is not grpc.aio.EOF and response.receipt:
            self._receipts.append(coordinator_messages.receipt(response.receipt))
            self.together |= bool(response.WhichOneof("event"))

    async def read(self) -> Any:
        while not self._events:
            await self._receive()
        return self._events.popleft()

    async def submit(self, header: pb.UpdateHeader) -> Receipt:
        await self._send(pb.TakePartRequest(update=header))
        while not self._receipts:
            await self._receive()
        return self._receipts.popleft()

    def cancel(self) -> None:
        self._call.cancel()


class Client:
    """A client that uses only stubs and messages, as one in another language does."""

    _stream: Stream | None = None

    def __init__(self, channel: grpc.aio.Channel, client_id: str = "anna") -> None:
        self.stub, self.id, self.session = CoordinatorServiceStub(channel), client_id, ""

    async def join(self, key: str = "key") -> pb.JoinResponse:
        hello = Hello(self.id, key, 4, frozenset({"float32"}))
        response: pb.JoinResponse = await self.stub.Join(coordinator_messages.join_request(hello))
        self.session = response.session
        return response

    def stream(self) -> Stream:
        self._stream = Stream(self.stub, self.session)
        return self._stream

    async def submit(self, task: Task, update: Update, spoil: Callable[[pb.UpdateHeader], object]) -> Receipt:
        header = coordinator_messages.update_header("", task.id, update, bundle(update.arrays)[0])
        spoil(header)
        stream = self.stream() if self._stream is None or self._stream.broken else self._stream
        return await stream.submit(header)

    async def stream_update(self, task: Task, spoil: Spoil) -> Receipt:
        """Sends the update in chunks of eight bytes, though it is small."""
        announced, _ = bundle(update_of(task).arrays)
        data, announced.data = announced.data, b""
        header = coordinator_messages.update_header(self.session, task.id, update_of(task), announced)
        sent = [chunk(data[offset : offset + 8], offset) for offset in range(0, len(data), 8)]
        parts = [pb.StreamUpdateRequest(header=header), *(pb.StreamUpdateRequest(chunk=each) for each in sent)]
        for part in parts:
            spoil(part)
        response = await self.stub.StreamUpdate(iter(parts))
        return coordinator_messages.receipt(response.receipt)

    async def answer(self, task: Task, spoil: Callable[[pb.UpdateHeader], object] = lambda header: None) -> Receipt:
        return await self.submit(task, update_of(task), spoil)


def update_of(task: Task) -> Update:
    arrays = {} if task.id.phase is Phase.EVALUATE else {"losses": np.arange(6.0, dtype=np.float32)}
    return Update(arrays, 4.0, MEASURED)


async def next_task(stream: Any) -> Task:
    header: pb.TaskHeader | None = None
    assembler: Assembler | None = None
    while True:
        response = await stream.read()
        assert response is not grpc.aio.EOF
        if response.HasField("task"):
            header, assembler = response.task, Assembler(response.task.arrays, 10**6)
        elif response.HasField("chunk"):
            assert assembler is not None
            assembler.add(response.chunk)
        if header is not None and assembler is not None and assembler.complete:
            return coordinator_messages.task(header, assembler.arrays())


@asynccontextmanager
async def serving(
    clients: int = 1, rounds: int = 1, heartbeat_seconds: float = 10.0
) -> AsyncIterator[tuple[CoordinatorServer, grpc.aio.Channel]]:
    traffic = TrafficMeter()
    started = await serve(
        Runs([LiveRun(new_coordinator(traffic, clients, rounds), traffic)]), heartbeat_seconds=heartbeat_seconds
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}", [("grpc.enable_http_proxy", 0)]) as channel:
            yield started, channel
    finally:
        await started.stop(grace_seconds=5.0)


async def failure(call: Awaitable[Any]) -> str:
    """Returns the reason that a failed call states."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    reason: str = info.reason
    return reason


def test_a_run_goes_from_join_to_finished() -> None:
    async def scenario() -> None:
        async with serving() as (started, channel):
            client, operator = Client(channel), RunServiceStub(channel)
            watch = aiter(operator.WatchRun(run_pb2.WatchRunRequest()))
            assert (await anext(watch)).run.state == run_pb2.RUN_STATE_WAITING
            no_result = await failure(operator.GetResult(run_pb2.GetResultRequest()))
            assert no_result == "NoResultYet"

            joined = await client.join()
            assert space_of(coordinator_messages.run_settings(joined, SETTINGS).space) == SPACE
            stream = client.stream()
            first = await next_task(stream)
            assert (first.id.round, first.id.phase) == (0, Phase.UPDATE)
            assert set(first.arrays) == {"mean", "scale"}
            assert await client.answer(first) is Receipt.COUNTED
            assert await client.answer(first) is Receipt.DUPLICATE
            last = await next_task(stream)
            assert (last.id.round, last.id.phase) == (1, Phase.EVALUATE)
            assert not np.array_equal(last.arrays["mean"], first.arrays["mean"])
            assert stream.together, "the receipt came with the next task"
            assert await client.answer(last) is Receipt.COUNTED
            finished = await stream.read()
            assert finished.HasField("finished") and not finished.finished.stopped
            assert await stream.read() is grpc.aio.EOF
            await started.ended

            result = await operator.GetResult(run_pb2.GetResultRequest())
            assert operator_messages.result(result).measured.dev_accuracy == 0.75
            assert result.run.queries == 20
            seen = [response.run.state async for response in watch]
            assert seen[-1] == run_pb2.RUN_STATE_FINISHED
            assert await failure(client.join()) == "RunFinished"

    asyncio.run(scenario())


def test_bytes_are_counted_round_by_round() -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            client = Client(channel)
            await client.join()
            task = await next_task(client.stream())
            assert await client.answer(task) is Receipt.COUNTED
            status = (await RunServiceStub(channel).GetRun(run_pb2.GetRunRequest())).run
            if TrafficMeter().supported:
                assert 24 < status.last.bytes_up <= status.bytes_up < 10_000
                assert 40 < status.last.bytes_down <= status.bytes_down < 10_000

    asyncio.run(scenario())


def test_a_new_stream_repeats_the_task_and_sends_heartbeats() -> None:
    async def scenario() -> None:
        async with serving(heartbeat_seconds=0.01) as (_, channel):
            client = Client(channel)
            await client.join()
            stream = client.stream()
            task = await next_task(stream)
            assert (await stream.read()).HasField("heartbeat")
            stream.cancel()
            again = await next_task(client.stream())
            assert again.id == task.id
            assert np.array_equal(again.arrays["mean"], task.arrays["mean"])

    asyncio.run(scenario())


def test_a_client_without_a_task_gets_heartbeats_while_others_join() -> None:
    async def scenario() -> None:
        async with serving(clients=3, heartbeat_seconds=0.2) as (_, channel):
            client, restless = Client(channel), Client(channel, "ben")
            await client.join()
            heard = asyncio.ensure_future(client.stream().read())
            async with asyncio.timeout(10.0):
                while not heard.done():
                    await restless.join()
            assert heard.result().HasField("heartbeat")

    asyncio.run(scenario())


def test_a_new_session_evicts_the_previous_one() -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            old, new = Client(channel), Client(channel)
            await old.join()
            stream = old.stream()
            task = await next_task(stream)
            assert await failure(Client(channel).join(key="thief")) == "ClientIdTaken"
            await new.join()
            assert await failure(stream.read()) == "SessionEvicted"
            assert await failure(old.answer(task)) == "SessionEvicted"
            assert (await next_task(new.stream())).id == task.id
            assert await new.answer(task) is Receipt.COUNTED

    asyncio.run(scenario())


def test_an_operator_stops_the_run() -> None:
    async def scenario() -> None:
        async with serving(rounds=5) as (started, channel):
            client = Client(channel)
            await client.join()
            stream = client.stream()
            task = await next_task(stream)
            stopped = await RunServiceStub(channel).StopRun(run_pb2.StopRunRequest())
            assert stopped.run.state == run_pb2.RUN_STATE_RUNNING
            assert await client.answer(task) is Receipt.COUNTED
            finished = await stream.read()
            assert finished.finished.stopped
            await started.ended

    asyncio.run(scenario())


def _flip(header: pb.UpdateHeader) -> None:
    header.arrays.data = bytes([header.arrays.data[0] ^ 1]) + header.arrays.data[1:]


def _nan(header: pb.UpdateHeader) -> None:
    header.arrays.CopyFrom(bundle({"losses": np.full(6, np.nan, np.float32)})[0])


SPOILS: Iterable[tuple[Callable[[pb.UpdateHeader], object], str]] = (
    (_flip, "ChecksumMismatch"),
    (lambda header: setattr(header.arrays, "crc32c", 1), "ChecksumMismatch"),
    (_nan, "InvalidTensor"),
    (lambda header: setattr(header.arrays, "data", b""), "InvalidTensor"),
    (lambda header: setattr(header.arrays, "total_bytes", 10**9), "MessageTooLarge"),
    (lambda header: setattr(header.arrays.tensors[0], "name", "mean"), "InvalidUpdate"),
    (lambda header: header.arrays.tensors[0].shape.append(1), "InvalidTensor"),
    (lambda header: setattr(header, "weight", 0.0), "InvalidUpdate"),
    (lambda header: header.ClearField("measurement"), "InvalidRequest"),
    (lambda header: setattr(header.measurement, "queries", -1), "InvalidUpdate"),
    (lambda header: setattr(header.id, "run_id", "run-2"), "UnknownRun"),
    (lambda header: setattr(header.id, "round", 1), "UnknownRound"),
    (lambda header: setattr(header.id, "client_id", "berta"), "InvalidUpdate"),
    (lambda header: setattr(header.id, "phase", 7), "InvalidRequest"),
)


@pytest.mark.parametrize(("spoil", "expected"), SPOILS)
def test_bad_updates_are_refused_and_lose_nothing(spoil: Callable[[pb.UpdateHeader], object], expected: str) -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            client = Client(channel)
            await client.join()
            task = await next_task(client.stream())
            assert await failure(client.answer(task, spoil)) == expected
            assert await client.answer(task) is Receipt.COUNTED

    asyncio.run(scenario())


def _chunk(change: Callable[[pb.StreamUpdateRequest], object]) -> Spoil:
    return lambda part: change(part) if part.HasField("chunk") else None


def _header(change: Callable[[pb.UpdateHeader], object]) -> Spoil:
    return lambda part: change(part.header) if part.HasField("header") else None


def _flip_chunk(part: pb.StreamUpdateRequest) -> None:
    part.chunk.data = bytes([part.chunk.data[0] ^ 1]) + part.chunk.data[1:]


STREAM_SPOILS: Iterable[tuple[Spoil, str]] = (
    (_chunk(_flip_chunk), "ChecksumMismatch"),
    (_header(lambda header: setattr(header.arrays, "crc32c", 1)), "ChecksumMismatch"),
    (_chunk(lambda part: setattr(part.chunk, "offset", 4)), "InvalidTensor"),
    (_header(lambda header: setattr(header, "session", "stale")), "SessionUnknown"),
    (lambda part: part.ClearField("part"), "InvalidRequest"),
    (_chunk(lambda part: part.header.SetInParent()), "InvalidRequest"),
)


@pytest.mark.parametrize(("spoil", "expected"), STREAM_SPOILS)
def test_bad_streams_of_an_update_are_refused_and_lose_nothing(spoil: Spoil, expected: str) -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            client = Client(channel)
            await client.join()
            task = await next_task(client.stream())
            assert await failure(client.stream_update(task, spoil)) == expected
            assert await client.stream_update(task, lambda part: None) is Receipt.COUNTED

    asyncio.run(scenario())


WRONG_PARTS: Iterable[tuple[list[pb.TakePartRequest], str]] = (
    ([], "a stream without an opening"),
    ([pb.TakePartRequest(heartbeat=pb.Heartbeat())], "a stream without an opening"),
    ([pb.TakePartRequest(opening=pb.Opening()), pb.TakePartRequest(opening=pb.Opening())], "part 'opening'"),
    ([pb.TakePartRequest(opening=pb.Opening()), pb.TakePartRequest()], "part None"),
)


@pytest.mark.parametrize(("parts", "expected"), WRONG_PARTS)
def test_a_stream_without_order_is_refused(parts: list[pb.TakePartRequest], expected: str) -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            client = Client(channel)
            await client.join()
            for part in parts[:1]:
                if part.HasField("opening"):
                    part.opening.session = client.session
            call: Any = client.stub.TakePart(iter(parts))
            with pytest.raises(grpc.aio.AioRpcError, match=expected) as caught:
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(scenario())


def test_one_bad_update_does_not_spoil_those_that_arrive_with_it() -> None:
    async def scenario() -> None:
        async with serving(clients=3) as (_, channel):
            clients = [Client(channel, name) for name in ("anna", "bert", "clara")]
            for client in clients:
                await client.join()
            tasks = [await next_task(client.stream()) for client in clients]
            answers: Sequence[Any] = await asyncio.gather(
                clients[0].answer(tasks[0]),
                failure(clients[1].answer(tasks[1], lambda header: setattr(header, "weight", 0.0))),
                clients[2].answer(tasks[2]),
            )
            assert list(answers) == [Receipt.COUNTED, "InvalidUpdate", Receipt.COUNTED]

    asyncio.run(scenario())


def test_a_round_does_not_wait_for_a_client_that_left() -> None:
    async def scenario() -> None:
        async with serving(clients=2) as (_, channel):
            anna, berta = Client(channel), Client(channel, "berta")
            await anna.join()
            await berta.join()
            task = await next_task(anna.stream())
            open_stream = berta.stream()
            await next_task(open_stream)
            for _ in range(2):
                await berta.stub.Leave(pb.LeaveRequest(session=berta.session))
            assert await open_stream.read() is grpc.aio.EOF
            assert await failure(berta.stream().read()) == "SessionUnknown"
            # The quorum is two, so the round waits until another client joins.
            assert await anna.answer(task) is Receipt.COUNTED
            clara = Client(channel, "clara")
            await clara.join()
            assert await clara.answer(await next_task(clara.stream())) is Receipt.COUNTED
            status = (await RunServiceStub(channel).GetRun(run_pb2.GetRunRequest())).run
            assert (status.last.clients, status.round) == (2, 1)
            assert [member.client_id for member in status.members] == ["anna", "clara"]

    asyncio.run(scenario())


def test_health_checks_report_serving() -> None:
    async def scenario() -> None:
        async with serving() as (_, channel):
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("", COORDINATOR_SERVICE):
                response = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert response.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(scenario())
