"""Sends damaged messages to both services, for as long as one likes: `python -m tests.robustness.fuzz --seconds 3600`.

A service may answer them, or refuse them with the code of the caller's mistake, and must go on. INTERNAL and UNKNOWN
mean that it did not expect the message. Each finding is printed with the rpc and the bytes that cause it.
"""

import argparse
import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.server import serve as serve_ptm
from fedbbpt.ptm.v1 import ptm_pb2
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import serve as serve_run
from fedbbpt.types import Examples, ExampleSet, Hello, Perturbation, TaskId, TaskSpec, TextPrompts
from fedbbpt.v1 import coordinator_pb2, run_pb2
from fedbbpt.wire.messages import coordinator_messages, ptm_messages
from fedbbpt.wire.tensors import bundle
from fedbbpt.wire.traffic import TrafficMeter
from tests.robustness.mutation import damaged
from tests.scenarios.test_coordinator_service import new_coordinator, update_of

WRONG = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
CALL_SECONDS = 60.0
_OWN_ERROR = "Internal error from Core"
_ENDLESS = ("Stream", "Watch", "TakePart")
"""What grpc.aio says to a caller that is still writing when the service has answered already."""


@dataclass(frozen=True)
class Finding:
    """A message that a service did not expect."""

    path: str
    sent: tuple[bytes, ...]
    code: grpc.StatusCode
    details: str

    def __str__(self) -> str:
        return f"{self.path}: {self.code.name}: {self.details}\n  sent {[part.hex() for part in self.sent]}"


class Target(Protocol):
    """A service, with valid messages of its rpcs."""

    port: int

    async def requests(self) -> Mapping[str, Message]:
        """Returns a valid request of each rpc by its path, in the service's present state."""


class Coordinator:
    """A coordinator of a run with one client, which never ends by itself."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.port = 0

    async def start(self) -> None:
        await self._stack.aclose()
        traffic = TrafficMeter()
        self._run = new_coordinator(traffic, clients=1, rounds=10**6)
        self._live = LiveRun(self._run, traffic)
        self._runs = Runs([self._live])
        serving = await serve_run(self._runs, port=self.port)
        self.port = serving.port
        self._stack.push_async_callback(serving.stop, 0.0)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def requests(self) -> Mapping[str, Message]:
        """Starts the run anew if a message has ended it, or brought clients that it waits for."""
        hello = Hello("anna", "key", 4, frozenset({"float32"}))
        task = None
        while task is None:
            if not self._run.state.ended:
                session, settings = self._run.join(hello, 0.0)
                task = self._run.task_for(session)
            if task is None:
                await self.start()
        id = TaskId(settings.run_id, task.id.round, "anna", task.id.phase)
        update = update_of(task)
        session = self._runs.session(self._live, session)
        header = coordinator_messages.update_header(session, id, update, bundle(update.arrays)[0])
        pb = coordinator_pb2
        return {
            **_empty(run_pb2.DESCRIPTOR.services_by_name["RunService"]),
            **_empty(health_pb2.DESCRIPTOR.services_by_name["Health"]),
            **_empty(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]),
            **_paths(
                pb.DESCRIPTOR.services_by_name["CoordinatorService"],
                Join=coordinator_messages.join_request(hello),
                GetAuxiliary=pb.GetAuxiliaryRequest(session=session),
                TakePart=pb.TakePartRequest(opening=pb.Opening(session=session)),
                StreamUpdate=pb.StreamUpdateRequest(header=header),
                ReportTrouble=pb.ReportTroubleRequest(session=session, text="no answer"),
                ReportPtm=pb.ReportPtmRequest(session=session, model="fake", revision="r1"),
                Leave=pb.LeaveRequest(session=session),
            ),
        }


class Ptm:
    """A PTM service with a fake model, which knows one task and its examples."""

    async def start(self) -> None:
        self._engine = Engine(Fake(), time.monotonic)
        self._serving = await serve_ptm(self._engine)
        self.port = self._serving.port

    async def stop(self) -> None:
        await self._serving.stop(None)

    async def requests(self) -> Mapping[str, Message]:
        """Registers the task and the examples again if a message has released them."""
        task = TaskSpec("{prompt} {text}", ("a number", "a person"))
        inputs = Examples(("who wrote it", "how many people", "where is it"))
        examples = ExampleSet(inputs, 4, Perturbation(0.1, 3))
        pb, rpc = ptm_pb2, self._serving.service
        tenant = rpc._tenants.identify(None, [])
        registered = await rpc.RegisterTask(ptm_messages.register_task_request(task), tenant)
        register = ptm_messages.register_examples_request(registered.task_id, examples)
        handle = await rpc.RegisterExamples(register, tenant)
        return {
            **_empty(health_pb2.DESCRIPTOR.services_by_name["Health"]),
            **_empty(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]),
            **_paths(
                pb.DESCRIPTOR.services_by_name["PtmService"],
                Describe=pb.DescribeRequest(),
                RegisterTask=ptm_messages.register_task_request(task),
                RegisterExamples=register,
                Score=ptm_messages.score_request(handle.examples_id, TextPrompts(("which kind", "what"))),
                Release=pb.ReleaseRequest(examples_id=handle.examples_id),
                GetUsage=pb.GetUsageRequest(),
            ),
        }


def _paths(service: Any, **requests: Message) -> dict[str, Message]:
    assert set(requests) == {method.name for method in service.methods}, "every rpc has a valid request"
    return {f"/{service.full_name}/{name}": request for name, request in requests.items()}


def _empty(service: Any) -> dict[str, Message]:
    return _paths(service, **{method.name: GetMessageClass(method.input_type)() for method in service.methods})


async def _outcome(channel: grpc.aio.Channel, path: str, sent: tuple[bytes, ...]) -> tuple[grpc.StatusCode, str]:
    """Sends messages and returns the status; a stream that answers ends there, as it may be endless."""
    rpc: Any = channel.stream_stream(path)
    call = rpc(iter(sent), timeout=CALL_SECONDS)
    try:
        if await call.read() is not grpc.aio.EOF and not any(word in path for word in _ENDLESS):
            await call.read()
    except grpc.aio.AioRpcError as error:
        if error.details() == _OWN_ERROR:
            return grpc.StatusCode.OK, ""
        return error.code(), error.details() or ""
    finally:
        call.cancel()
    return grpc.StatusCode.OK, ""


async def findings(
    target: Target, draw: random.Random, codes: Counter[str], messages: int = 2**62
) -> AsyncIterator[Finding]:
    """Sends damaged messages, counts the codes of the answers, and yields those that are wrong."""
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options) as channel:
        for _ in range(messages):
            path, request = draw.choice([*(await target.requests()).items()])
            streams = path.endswith(("StreamUpdate", "ServerReflectionInfo"))
            sent = tuple(damaged(request, draw) for _ in range(draw.choice((1, 1, 2, 3)) if streams else 1))
            code, details = await _outcome(channel, path, sent)
            codes[f"{path.rpartition('/')[2]} {code.name}"] += 1
            if code in WRONG:
                yield Finding(path, sent, code, details)


async def main() -> None:
    """Fuzzes both services in turn and prints each new kind of finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL if given.seconds > 60 else logging.WARNING)
    codes, seen, until = Counter[str](), Counter[str](), time.monotonic() + given.seconds
    targets: list[Any] = [Coordinator(), Ptm()]
    for target in targets:
        await target.start()

    async def fuzz(target: Any, seed: int) -> None:
        async for found in findings(target, random.Random(seed), codes):
            kind = f"{found.path} {found.details}"
            seen[kind] += 1
            if seen[kind] == 1:
                print(found, flush=True)

    working = [asyncio.ensure_future(fuzz(target, given.seed + index)) for index, target in enumerate(targets)]
    await asyncio.wait(working, timeout=until - time.monotonic(), return_when=asyncio.FIRST_EXCEPTION)
    for task in working:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    for target in targets:
        await target.stop()
    for name, count in sorted(codes.items()):
        print(f"{count:8,} {name}")
    print(f"{sum(codes.values()):,} messages, {sum(seen.values())} findings of {len(seen)} kinds")


if __name__ == "__main__":
    asyncio.run(main())
