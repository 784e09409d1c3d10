"""The engine behind gRPC. An edge file.

The event loop never computes. What a tenant changes in the engine runs in a thread of its own, which makes it safe;
micro-batches run in `Workers`, the fairest next. A caller that cancels or runs out of time gives up what waits. It is
known before its message is read (`AdmissionInterceptor`), and how much a tenant has under way is bounded (`UnderWay`).
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedbbpt.errors import FedbbptError, Unauthenticated
from fedbbpt.ptm.engine import Begun, Engine
from fedbbpt.ptm.metrics import PtmMetrics
from fedbbpt.ptm.scheduling.workers import Workers
from fedbbpt.ptm.tenants.idempotency import Attempts, Replies
from fedbbpt.ptm.tenants.in_flight import UnderWay
from fedbbpt.ptm.tenants.registry import Tenant, Tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1 import ptm_pb2_grpc
from fedbbpt.types import Scored
from fedbbpt.wire.admission import ANONYMOUS_LIMITS, IDENTIFIED_LIMITS, AdmissionInterceptor, CallerLimits
from fedbbpt.wire.channel import bind, create_server
from fedbbpt.wire.messages import card_messages, ptm_messages, usage_messages
from fedbbpt.wire.tls import ServerTls

NAME = pb.DESCRIPTOR.services_by_name["PtmService"].full_name

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what may wait."""

    queued_tokens: int = 10_000_000
    """Of each tenant; one call is always taken, however large."""
    request_bytes: int = 1 << 28
    """Of a tenant's open requests; one is always taken."""
    planned_calls: int = 16
    """Of a tenant, whose prompts take memory; its other calls wait."""
    tenant_calls: CallerLimits = IDENTIFIED_LIMITS
    """Limits of each tenant's calls."""
    anonymous_calls: CallerLimits = ANONYMOUS_LIMITS
    """Limits of all calls of health and reflection together."""
    quantum: int = 1024
    """Tokens of a tenant's turn."""
    reply_seconds: float = 600.0
    """How long answers are remembered by their idempotency keys."""
    reply_bytes: int = 1 << 26
    """Of each tenant's."""
    forget_seconds: float = 60.0
    """How often what has expired is looked for."""


class PtmService(ptm_pb2_grpc.PtmServiceServicer):
    """One engine, asked by many callers."""

    def __init__(self, engine: Engine, tenants: Tenants, bounds: Bounds) -> None:
        self._engine, self._tenants, self._bounds = engine, tenants, bounds
        self._workers = Workers(engine.threads, quantum=bounds.quantum, max_tokens=bounds.queued_tokens)
        self._under_way: dict[str, UnderWay] = {}
        self.metrics = PtmMetrics(
            queued_tokens=lambda: float(self._workers.tokens), kept_bytes=lambda: float(engine.kept_bytes)
        )

    @property
    def queued_tokens(self) -> int:
        """That wait to be computed."""
        return self._workers.tokens

    def close(self) -> None:
        """Ends the threads; micro-batches that run come to their end."""
        self._workers.close()
        for under_way in self._under_way.values():
            under_way.close()

    def caller(self, context: Context) -> Tenant:
        """Returns the tenant that calls. Raises Unauthenticated."""
        try:
            return self._tenant(context)
        except Unauthenticated as error:
            self.metrics.ended("any", type(error).__name__)
            raise

    def _tenant(self, context: Context) -> Tenant:
        shown = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
        proven = context.auth_context()
        names = [*proven.get("x509_common_name", ()), *proven.get("x509_subject_alternative_name", ())]
        return self._tenants.identify(shown, [name.decode(errors="replace") for name in names])

    async def forget(self, every_seconds: float) -> None:
        """For ever: what has expired of tenants that have not come back."""
        while True:
            await asyncio.sleep(every_seconds)
            for mine in list(self._under_way.values()):
                mine.replies.forget()
                await mine.run(partial(self._engine.handles, tenant=mine.tenant))

    @asynccontextmanager
    async def _call(self, rpc: str) -> AsyncIterator[None]:
        """Counts how a call ends."""
        status = "cancelled"
        try:
            yield
            status = "ok"
        except Exception as error:
            status = type(error).__name__ if isinstance(error, FedbbptError) else "bug"
            raise
        finally:
            self.metrics.ended(rpc, status)

    def _of(self, tenant: Tenant) -> UnderWay:
        if tenant.name not in self._under_way:
            bounds = self._bounds
            replies = Replies(seconds=bounds.reply_seconds, max_bytes=bounds.reply_bytes, clock=time.monotonic)
            self._under_way[tenant.name] = UnderWay(
                tenant, replies, max_bytes=bounds.request_bytes, max_planned=bounds.planned_calls
            )
        return self._under_way[tenant.name]

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        async with self._call("Describe"):
            tenant = self._tenant(context)
            card = await self._of(tenant).run(lambda: self._engine.describe(tenant=tenant))
            return card_messages.describe_response(card)

    async def RegisterTask(self, request: pb.RegisterTaskRequest, context: Context) -> pb.RegisterTaskResponse:
        async with self._call("RegisterTask"):
            tenant = self._tenant(context)
            mine = self._of(tenant)

            def register() -> pb.RegisterTaskResponse:
                return pb.RegisterTaskResponse(
                    task_id=self._engine.register_task(ptm_messages.task(request), tenant=tenant)
                )

            with mine.request(request.ByteSize()):
                async with mine.turn:
                    return await mine.run(register)

    async def RegisterExamples(
        self, request: pb.RegisterExamplesRequest, context: Context
    ) -> pb.RegisterExamplesResponse:
        async with self._call("RegisterExamples"):
            tenant = self._tenant(context)
            mine = self._of(tenant)

            def register() -> pb.RegisterExamplesResponse:
                kept = ptm_messages.example_set(request)
                handle = self._engine.register_examples(
                    request.task_id, kept.examples, kept.prompt_tokens, kept.perturbation, kept.labels, tenant=tenant
                )
                return ptm_messages.register_examples_response(handle, self._engine.time_to_live_seconds)

            with mine.request(request.ByteSize()):
                async with mine.turn:
                    return await mine.run(register)

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        async with self._call("Score"):
            tenant = self._tenant(context)
            mine = self._of(tenant)
            with mine.request(request.ByteSize()):
                if not request.idempotency_key:
                    return await self._score(request, tenant, Attempts())

                async def make(attempts: Attempts) -> bytes:
                    return (await self._score(request, tenant, attempts)).SerializeToString()

                digest = await asyncio.to_thread(_digest, request)
                reply = await mine.replies.once(request.idempotency_key, digest, make)
                return pb.ScoreResponse.FromString(reply)

    async def _score(self, request: pb.ScoreRequest, tenant: Tenant, attempts: Attempts) -> pb.ScoreResponse:
        def begin() -> Begun:
            examples, prompts = ptm_messages.scored_examples(request), ptm_messages.prompts(request)
            return self._engine.begin(examples, prompts, fresh=request.fresh, paid=attempts.paid, tenant=tenant)

        async def give_up(begun: Begun) -> None:
            attempts.paid += await self._give_up(begun)

        mine = self._of(tenant)
        async with mine.planned:
            async with mine.turn:
                begun = await self._uninterrupted(mine.run(begin), give_up)
            try:
                await self._compute(begun, tenant)
            except BaseException:
                await asyncio.shield(give_up(begun))
                raise
            finishing = asyncio.ensure_future(self._finish(begun))
            try:
                scored = await asyncio.shield(finishing)
            except asyncio.CancelledError:
                # All of it is computed and paid: there is an answer, for when the caller comes back with its key.
                scored = await finishing
        return ptm_messages.score_response(scored, begun.examples_id)

    async def _finish(self, begun: Begun) -> Scored:
        tenant = begun.tenancy.tenant
        scored = await self._of(tenant).run(lambda: self._engine.finish(begun))
        self.metrics.used(tenant.name, scored.usage)
        return scored

    async def _uninterrupted(self, making: Awaitable[T], undo: Callable[[T], Awaitable[None]]) -> T:
        """Waits for what cannot be stopped half-way; where the caller goes meanwhile, undoes it."""
        task = asyncio.ensure_future(making)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await undo(await task)
            raise

    async def _give_up(self, begun: Begun) -> int:
        """The queries that it is charged for all the same."""
        tenant = begun.tenancy.tenant
        usage = await self._of(tenant).run(lambda: self._engine.give_up(begun))
        self.metrics.used(tenant.name, usage)
        return usage.queries

    async def _compute(self, begun: Begun, tenant: Tenant) -> None:
        """Until all micro-batches have run. Cancelled, it waits for those that run, and drops the others."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if error:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(settle, error)

        drop = self._workers.submit(tenant.name, begun.scoring, done)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            drop()
            await asyncio.wait({ended})
            raise

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        async with self._call("Release"):
            tenant = self._tenant(context)
            await self._of(tenant).run(lambda: self._engine.release(request.examples_id, tenant=tenant))
            return pb.ReleaseResponse()

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        async with self._call("GetUsage"):
            tenant = self._tenant(context)
            return await self._of(tenant).run(
                lambda: usage_messages.get_usage_response(
                    self._engine.usage(tenant=tenant),
                    self._engine.budget(tenant=tenant),
                    self._engine.handles(tenant=tenant),
                    self._engine.tasks_usage(tenant=tenant),
                )
            )


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


@dataclass(frozen=True, slots=True)
class Serving:
    """A started server."""

    server: grpc.aio.Server
    port: int
    service: PtmService
    health: health.aio.HealthServicer
    forgetting: "asyncio.Task[None]"

    async def stop(self, grace_seconds: float | None) -> None:
        """Tells that it goes, lets open calls end, and ends."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_seconds)
        self.forgetting.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.service.close)


async def serve(
    engine: Engine,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
    tenants: Tenants | None = None,
    insecure: bool = False,
    bounds: Bounds | None = None,
) -> Serving:
    """A started server of the PTM, of its health and of reflection. Raises PortTaken, InsecureAddress."""
    bounds = bounds or Bounds()
    service = PtmService(engine, tenants or Tenants.anyone(), bounds)
    admission = AdmissionInterceptor(service.caller, bounds.tenant_calls, bounds.anonymous_calls)
    server = create_server(interceptors=[admission])
    ptm_pb2_grpc.add_PtmServiceServicer_to_server(service, server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in (NAME, health.OVERALL_HEALTH):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([NAME, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        bound = bind(server, host, port, tls, insecure=insecure)
    except FedbbptError:
        service.close()
        raise
    await server.start()
    forgetting = asyncio.ensure_future(service.forget(bounds.forget_seconds))
    return Serving(server, bound, service, servicer, forgetting)
