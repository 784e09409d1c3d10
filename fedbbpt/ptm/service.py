"""The engine behind gRPC. An edge file.

The event loop never computes: the engine has one thread of its own, which also makes it safe. A caller that cancels or
runs out of time stops its work at the next micro-batch.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedbbpt.errors import DeadlineExceeded, InvalidExamples, InvalidRequest, Overloaded
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1 import ptm_pb2_grpc
from fedbbpt.wire import ptm_messages
from fedbbpt.wire.channel import ServerTls, bind, create_server

NAME = pb.DESCRIPTOR.services_by_name["PtmService"].full_name
MAX_PENDING_QUERIES = 200_000
"""What may wait or be at work; one call is always taken, however large."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class PtmService(ptm_pb2_grpc.PtmServiceServicer):
    """One engine, asked by many callers, one call at a time."""

    def __init__(self, engine: Engine, max_pending_queries: int, *, tokens_asked: bool) -> None:
        self._engine, self._tokens_asked = engine, tokens_asked
        self._card = engine.describe()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._max_pending_queries = max_pending_queries
        self._pending_queries = 0

    def _caller(self, context: Context) -> str:
        """Who shares a token is one caller; where none is asked for, all are."""
        if not self._tokens_asked:
            return ""
        shown = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        return hashlib.sha256(str(shown[0]).encode()).hexdigest()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        return ptm_messages.describe_response(self._card)

    async def RegisterTask(self, request: pb.RegisterTaskRequest, context: Context) -> pb.RegisterTaskResponse:
        task = ptm_messages.task(request)
        return pb.RegisterTaskResponse(task_id=await self._run(lambda: self._engine.register_task(task)))

    async def RegisterExamples(
        self, request_iterator: AsyncIterator[pb.RegisterExamplesRequest], context: Context
    ) -> pb.RegisterExamplesResponse:
        header, messages = await self._read(request_iterator)
        register = partial(
            self._engine.register_examples,
            header.task_id,
            ptm_messages.examples(messages),
            header.prompt_tokens,
            ptm_messages.perturbation(header),
            caller=self._caller(context),
        )
        return ptm_messages.register_examples_response(await self._run(register), self._engine.time_to_live_seconds)

    async def _read(
        self, requests: AsyncIterator[pb.RegisterExamplesRequest]
    ) -> tuple[pb.RegisterExamplesHeader, Sequence[pb.Example]]:
        header: pb.RegisterExamplesHeader | None = None
        messages: list[pb.Example] = []
        total_bytes = 0
        async for request in requests:
            part = request.WhichOneof("part")
            if (part == "header") != (header is None) or part is None:
                raise InvalidRequest(f"part {part!r}", where="part", fix="one header first, and then examples")
            if part == "header":
                header = request.header
                continue
            messages.append(request.example)
            total_bytes += request.ByteSize()
            if len(messages) > self._card.max_examples or total_bytes > self._card.max_message_bytes:
                fix = f"at most {self._card.max_examples} examples and {self._card.max_message_bytes} bytes"
                raise InvalidExamples("too many, or too long", where=f"examples[{len(messages) - 1}]", fix=fix)
        if header is None:
            raise InvalidRequest("an empty stream", where="header", fix="one header first, and then examples")
        return header, messages

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        prompts, caller = ptm_messages.prompts(request), self._caller(context)
        given_up = Event()

        def check() -> None:
            if given_up.is_set():
                raise DeadlineExceeded("the caller has gone", where="deadline", fix="fewer prompts, or more time")

        queries = self._engine.queries(request.examples_id, prompts, caller=caller)
        if self._pending_queries and self._pending_queries + queries > self._max_pending_queries:
            what = f"{self._pending_queries} queries are waiting"
            raise Overloaded(what, where="queue", fix=f"try again; {self._max_pending_queries} may wait")
        score = partial(self._engine.score, request.examples_id, prompts, caller=caller, check=check)
        self._pending_queries += queries
        try:
            return ptm_messages.score_response(await self._run(score))
        finally:
            given_up.set()
            self._pending_queries -= queries

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        caller = self._caller(context)
        await self._run(lambda: self._engine.release(request.examples_id, caller=caller))
        return pb.ReleaseResponse()

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        caller = self._caller(context)
        usage, handles = await self._run(
            lambda: (self._engine.usage(caller=caller), self._engine.handles(caller=caller))
        )
        return pb.GetUsageResponse(usage=ptm_messages.usage_message(usage), handles=handles)


async def serve(
    engine: Engine,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
    tokens: Collection[str] = (),
    insecure: bool = False,
    max_pending_queries: int = MAX_PENDING_QUERIES,
) -> tuple[grpc.aio.Server, int]:
    """A started server of the PTM, of its health and of reflection, and its port. Raises PortTaken, InsecureAddress."""
    server = create_server(tokens)
    service = PtmService(engine, max_pending_queries, tokens_asked=bool(tokens))
    ptm_pb2_grpc.add_PtmServiceServicer_to_server(service, server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in (NAME, health.OVERALL_HEALTH):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([NAME, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    bound = bind(server, host, port, tls, insecure=insecure)
    await server.start()
    return server, bound
