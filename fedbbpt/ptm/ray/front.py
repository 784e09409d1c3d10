"""The front: `ptm.service` behind Ray Serve's gRPC proxies, its model being on replicas. An edge file.

There is one front, which knows the tenants, their examples and budgets; replicas know none of that. Ray's proxies take
calls from every network and without TLS: who may call is decided here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from fedbbpt.errors import NotFound, PolicyForbids
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.ray.backend import Replicas, ReplicatedBackend
from fedbbpt.ptm.service import NAME, Bounds, PtmService
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import ModelCard
from fedbbpt.wire.addresses import is_loopback
from fedbbpt.wire.interceptors import status_of

M = TypeVar("M", bound=Message)

# What Ray gives for a context has what a service reads of one, but none of its types.
Context = Any


@dataclass(frozen=True, slots=True)
class Settings:
    """What a front is told when it begins, and when it has to begin anew."""

    tenants: Tenants
    batches: int
    """Micro-batches under way that keep all replicas busy."""
    this_machine_only: bool
    """Whether calls from elsewhere are refused."""
    audit: Path | None = None
    metrics: tuple[str, int] | None = None
    """Host and port."""


def _rpc(
    method: Callable[[PtmService, Any, Any], Awaitable[M]], empty: Callable[[], M]
) -> Callable[["Front", Any, Context], Awaitable[M]]:
    """Ray would tell the caller the trace of whatever is raised, with addresses and paths: nothing is."""

    async def answer(front: "Front", request: Any, grpc_context: Context) -> M:
        try:
            return await method(front.service(grpc_context), request, grpc_context)
        except Exception as error:
            _refuse(grpc_context, error)
            return empty()

    return answer


def _refuse(context: Context, error: Exception) -> None:
    status = status_of(error)
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(list(status.trailing_metadata))


class Front:
    """A deployment of Ray Serve."""

    def __init__(self, replicas: Replicas, settings: Settings) -> None:
        """Raises what `Engine` and `PtmMetrics.serve` raise."""
        self._settings = settings
        # The thread of this event loop may not wait for replicas.
        with ThreadPoolExecutor(1) as thread:
            backend = thread.submit(ReplicatedBackend, replicas, threads=settings.batches).result()
        self._card = backend.describe()
        engine = Engine(backend, time.monotonic, tenants=settings.tenants, audit_file=settings.audit)
        self._service = PtmService(engine, settings.tenants, Bounds())
        self._ends = asyncio.Event()
        self._forgetting: asyncio.Task[None] | None = None
        if settings.metrics is not None:
            self._service.metrics.serve(*settings.metrics)

    async def card(self) -> ModelCard:
        return self._card

    async def queued_tokens(self) -> int:
        """What scaling goes by."""
        return self._service.queued_tokens

    async def end(self) -> None:
        """Tells whoever watches its health that the service goes."""
        self._ends.set()

    def service(self, context: Context) -> PtmService:
        """For a caller who may call. Raises PolicyForbids."""
        host = unquote(context.peer()).partition(":")[2].rpartition(":")[0]  # of "ipv6:%5B::1%5D:41234"
        if self._settings.this_machine_only and not is_loopback(host):
            fix = "a TLS proxy on this machine, or a service that was begun with another --host and --insecure"
            raise PolicyForbids("calls from other machines would go in clear", where="peer", fix=fix)
        if self._forgetting is None:  # before, there is nothing to forget
            self._forgetting = asyncio.ensure_future(self._service.forget(Bounds().forget_seconds))
        return self._service

    Describe = _rpc(PtmService.Describe, pb.DescribeResponse)
    RegisterTask = _rpc(PtmService.RegisterTask, pb.RegisterTaskResponse)
    RegisterExamples = _rpc(PtmService.RegisterExamples, pb.RegisterExamplesResponse)
    Score = _rpc(PtmService.Score, pb.ScoreResponse)
    Release = _rpc(PtmService.Release, pb.ReleaseResponse)
    GetUsage = _rpc(PtmService.GetUsage, pb.GetUsageResponse)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Of grpc.health.v1, which Ray does not serve."""
        response = self._health(request)
        if response.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            _refuse(grpc_context, NotFound(f"no service {request.service!r}", fix=NAME))
        return response

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield self._health(request)
        await self._ends.wait()
        yield self._health(request)

    def _health(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        status = health_pb2.HealthCheckResponse
        if request.service not in (NAME, health.OVERALL_HEALTH):
            return status(status=status.SERVICE_UNKNOWN)
        return status(status=status.NOT_SERVING if self._ends.is_set() else status.SERVING)
