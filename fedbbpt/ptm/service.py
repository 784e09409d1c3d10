"""Runs the calls of all tenants on one engine. Knows messages, but no servers: `ptm.server` and `ptm.ray.front` do.

The event loop never computes. Every change of a tenant's state in the engine runs in that tenant's own thread
(`InFlightCalls`), and micro-batches run in `Workers`, which share the model fairly. If a caller cancels or its deadline
passes, its waiting micro-batches are dropped.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from fedbbpt.errors import FedbbptError, Unauthenticated
from fedbbpt.identity.certificates import identity_of
from fedbbpt.ptm.engine import Engine, ScoreCall
from fedbbpt.ptm.metrics import PtmMetrics
from fedbbpt.ptm.scheduling.workers import Workers
from fedbbpt.ptm.tenants.idempotency import Attempts, ReplyCache
from fedbbpt.ptm.tenants.in_flight import InFlightCalls
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Scored
from fedbbpt.wire.admission import IDENTIFIED_LIMITS, CallerLimits
from fedbbpt.wire.messages import card_messages, ptm_messages, usage_messages
from fedbbpt.wire.strangers import STRANGER_LIMITS, StrangerLimits
from fedbbpt.wire.tokens import shown_token

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits of the service. Those of calls, requests and tokens apply to each tenant."""

    queued_tokens: int = 10_000_000
    """Tokens that wait to be computed. A single call is always accepted, however large."""
    request_bytes: int = 1 << 28
    """Bytes of open requests. A single request is always accepted."""
    planned_calls: int = 16
    """Calls whose prompts are in memory; further calls wait."""
    tenant_calls: CallerLimits = IDENTIFIED_LIMITS
    strangers: StrangerLimits = STRANGER_LIMITS
    """Limits of all calls that need no token."""
    quantum: int = 1024
    """Tokens that a tenant may compute before it is another tenant's turn."""
    reply_seconds: float = 600.0
    """Seconds that replies are remembered by their idempotency keys."""
    reply_bytes: int = 1 << 26
    """Bytes of remembered replies."""
    cleanup_seconds: float = 60.0
    """Interval at which expired examples and replies are dropped."""


class PtmService:
    """The rpcs of PtmService. Each takes the request and the tenant that asks, which `identify` returns."""

    def __init__(self, engine: Engine, tenants: Tenants, limits: ServiceLimits) -> None:
        self._engine, self._tenants, self._limits = engine, tenants, limits
        self._workers = Workers(engine.threads, quantum=limits.quantum, max_tokens=limits.queued_tokens)
        self._in_flight: dict[str, InFlightCalls] = {}
        self.metrics = PtmMetrics(
            queued_tokens=lambda: float(self._workers.tokens), kept_bytes=lambda: float(engine.kept_bytes)
        )

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait to be computed."""
        return self._workers.tokens

    def close(self) -> None:
        """Ends all threads, after the micro-batches that are running."""
        self._workers.close()
        for calls in self._in_flight.values():
            calls.close()

    async def adopt(self, tenants: Tenants) -> None:
        """Serves these tenants in place of the old. Their usage continues; a tenant that is not among them is refused.

        Raises InvalidInput, AuditBroken, StoreError, and then serves the old ones.
        """
        self._engine.check_change(tenants)
        for tenant in tenants:
            calls = self._calls_of(tenant)
            await calls.run(partial(self._engine.adopt, tenant))
            calls.tenant = tenant
        self._tenants = tenants

    def identify(self, context: Any) -> Tenant:
        """Returns the tenant of a call, by its token and certificate in the gRPC context. Raises Unauthenticated."""
        proven = context.auth_context()
        names = [*proven.get("x509_common_name", ()), *proven.get("x509_subject_alternative_name", ())]
        try:
            for pem in proven.get("x509_pem_cert", ()):
                self._tenants.check_certificate(identity_of(pem).serial)
            shown = shown_token(context.invocation_metadata())
            return self._tenants.identify(shown, [name.decode(errors="replace") for name in names])
        except Unauthenticated as error:
            self.metrics.ended("any", type(error).__name__)
            raise

    async def clean_up(self) -> None:
        """Drops expired examples and replies of all tenants at intervals, until it is cancelled."""
        while True:
            await asyncio.sleep(self._limits.cleanup_seconds)
            for calls in list(self._in_flight.values()):
                calls.replies.drop_expired()
                await calls.run(partial(self._engine.drop_expired, tenant=calls.tenant))

    @asynccontextmanager
    async def _call(self, rpc: str, tenant: Tenant) -> AsyncIterator[InFlightCalls]:
        """Gives the tenant's calls in flight, and counts in the metrics how this one ends."""
        status = "cancelled"
        try:
            yield self._calls_of(tenant)
            status = "ok"
        except Exception as error:
            status = type(error).__name__ if isinstance(error, FedbbptError) else "bug"
            raise
        finally:
            self.metrics.ended(rpc, status)

    def _calls_of(self, tenant: Tenant) -> InFlightCalls:
        if tenant.name not in self._in_flight:
            limits = self._limits
            replies = ReplyCache(seconds=limits.reply_seconds, max_bytes=limits.reply_bytes, clock=time.monotonic)
            self._in_flight[tenant.name] = InFlightCalls(
                tenant, replies, max_bytes=limits.request_bytes, max_planned=limits.planned_calls
            )
        return self._in_flight[tenant.name]

    async def Describe(self, request: pb.DescribeRequest, tenant: Tenant) -> pb.DescribeResponse:
        """Returns the model's card."""
        async with self._call("Describe", tenant) as calls:
            return card_messages.describe_response(await calls.run(partial(self._engine.describe, tenant=tenant)))

    async def RegisterTask(self, request: pb.RegisterTaskRequest, tenant: Tenant) -> pb.RegisterTaskResponse:
        """Registers a task for the tenant."""

        def register() -> pb.RegisterTaskResponse:
            task = ptm_messages.task(request)
            task_id = self._engine.register_task(task, tenant=tenant)
            return pb.RegisterTaskResponse(task_id=task_id, label_tokens=self._engine.label_tokens(task))

        async with self._call("RegisterTask", tenant) as calls:
            with calls.open_request(request.ByteSize()):
                async with calls.turn:
                    return await calls.run(register)

    async def RegisterExamples(
        self, request: pb.RegisterExamplesRequest, tenant: Tenant
    ) -> pb.RegisterExamplesResponse:
        """Registers the examples of a task for the tenant."""

        def register() -> pb.RegisterExamplesResponse:
            given = ptm_messages.example_set(request)
            handle = self._engine.register_examples(
                request.task_id, given.examples, given.prompt_tokens, given.perturbation, given.labels, tenant=tenant
            )
            return ptm_messages.register_examples_response(handle, self._engine.time_to_live_seconds)

        async with self._call("RegisterExamples", tenant) as calls:
            with calls.open_request(request.ByteSize()):
                async with calls.turn:
                    return await calls.run(register)

    async def Score(self, request: pb.ScoreRequest, tenant: Tenant) -> bytes:
        """Returns the serialised ScoreResponse: replies are remembered by key in that form, and sent as they are."""
        async with self._call("Score", tenant) as calls:
            with calls.open_request(request.ByteSize()):
                if not request.idempotency_key:
                    return await self._score(request, calls, Attempts())
                digest = await asyncio.to_thread(_digest, request)
                compute = partial(self._score, request, calls)
                return await calls.replies.get_or_compute(request.idempotency_key, digest, compute)

    async def _score(self, request: pb.ScoreRequest, calls: InFlightCalls, attempts: Attempts) -> bytes:
        def begin() -> ScoreCall:
            examples, prompts = ptm_messages.scored_examples(request), ptm_messages.prompts(request)
            charged = attempts.charged_queries
            return self._engine.begin(
                examples, prompts, tenant=calls.tenant, fresh=request.fresh, charged_queries=charged
            )

        async def cancel(call: ScoreCall) -> None:
            attempts.charged_queries += await self._cancel(call, calls)

        async with calls.planned:
            async with calls.turn:
                call = await _uninterrupted(calls.run(begin), cancel)
            try:
                await self._compute(call, calls.tenant)
            except BaseException:
                await asyncio.shield(cancel(call))
                raise
            finishing = asyncio.ensure_future(self._finish(call, calls))
            try:
                scored = await asyncio.shield(finishing)
            except asyncio.CancelledError:
                # Everything is computed and charged, so the reply is kept for a caller that returns with its key.
                scored = await finishing
        return ptm_messages.score_response(scored, call.examples_id).SerializeToString()

    async def _finish(self, call: ScoreCall, calls: InFlightCalls) -> Scored:
        scored = await calls.run(partial(self._engine.finish, call))
        self.metrics.used(calls.tenant.name, scored.usage)
        return scored

    async def _cancel(self, call: ScoreCall, calls: InFlightCalls) -> int:
        """Cancels the call in the engine and returns the queries that it is charged for."""
        usage = await calls.run(partial(self._engine.cancel, call))
        self.metrics.used(calls.tenant.name, usage)
        return usage.queries

    async def _compute(self, call: ScoreCall, tenant: Tenant) -> None:
        """Runs all micro-batches. When cancelled, it drops those that wait, and waits for those that run."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if error:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(settle, error)

        drop = self._workers.submit(tenant.name, call.scoring, done)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            drop()
            await asyncio.wait({ended})
            raise

    async def Release(self, request: pb.ReleaseRequest, tenant: Tenant) -> pb.ReleaseResponse:
        """Takes back one registration of examples."""
        async with self._call("Release", tenant) as calls:
            await calls.run(partial(self._engine.release, request.examples_id, tenant=tenant))
            return pb.ReleaseResponse()

    async def GetUsage(self, request: pb.GetUsageRequest, tenant: Tenant) -> pb.GetUsageResponse:
        """Returns the tenant's usage, remaining budget and number of handles."""

        def get_usage() -> pb.GetUsageResponse:
            return usage_messages.get_usage_response(
                self._engine.usage(tenant=tenant),
                self._engine.budget(tenant=tenant),
                self._engine.handles(tenant=tenant),
                self._engine.tasks_usage(tenant=tenant),
            )

        async with self._call("GetUsage", tenant) as calls:
            return await calls.run(get_usage)


async def _uninterrupted(making: Awaitable[T], undo: Callable[[T], Awaitable[None]]) -> T:
    """Waits for work that cannot be stopped half-way. If the caller goes away meanwhile, undoes the result."""
    task = asyncio.ensure_future(making)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await undo(await task)
        raise


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
