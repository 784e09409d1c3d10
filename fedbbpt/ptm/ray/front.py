"""The front: the PTM service as Ray Serve's gRPC proxies call it, with its model on replicas.

There is one front. It knows the tenants, their examples and budgets; replicas know none of that. Ray's proxies accept
calls from every network and without TLS, so the front decides who may call.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from grpc_health.v1 import health, health_pb2

from fedbbpt.errors import NotFound, PolicyForbids
from fedbbpt.identity.callers import check_role
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.ray.backend import Replicas, ReplicatedBackend
from fedbbpt.ptm.server import SERVICE_NAME, Rpc, serialise
from fedbbpt.ptm.service import PtmService, ServiceLimits
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.types import ModelCard
from fedbbpt.wire.addresses import is_loopback
from fedbbpt.wire.interceptors import status_of
from fedbbpt.wire.request_limits import check_fields

# The context is Ray's own: it has those methods of gRPC's that a service uses, but not its type.
Context = Any


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Everything that a front needs to start, and to start again after a crash."""

    tenants: Tenants
    batches: int
    """Number of micro-batches in flight that keep all replicas busy."""
    this_machine_only: bool
    """True to refuse calls from other machines."""
    audit: Path | None = None
    metrics: tuple[str, int] | None = None
    """Host and port of the metrics page."""


@dataclass(frozen=True, slots=True)
class SerialisedReply:
    """A response that is serialised already. Ray calls SerializeToString on the result of every method."""

    data: bytes = b""

    def SerializeToString(self) -> bytes:
        """Returns the bytes unchanged."""
        return self.data


def _rpc(method: Callable[[PtmService], Rpc]) -> Callable[["Front", Any, Context], Awaitable[SerialisedReply]]:
    """Returns a method of the front that calls `method` of its service.

    It raises nothing, because Ray would send the traceback to the caller, with addresses and paths in it.
    """

    async def answer(front: "Front", request: Any, grpc_context: Context) -> SerialisedReply:
        try:
            front.check_peer(grpc_context)
            service = front.service()
            rpc, tenant = method(service), service.identify(grpc_context)
            check_role(tenant.name, frozenset({tenant.role}), f"/{SERVICE_NAME}/{rpc.__name__}")
            check_fields(request)
            reply = await rpc(request, tenant)
            return SerialisedReply(serialise(reply))
        except Exception as error:
            _set_status(grpc_context, error)
            return SerialisedReply()

    return answer


def _set_status(context: Context, error: Exception) -> None:
    status = status_of(error)
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(list(status.trailing_metadata))


class Front:
    """The front as a deployment of Ray Serve. Its capitalised methods are the rpcs of PtmService and grpc.health.v1."""

    def __init__(self, replicas: Replicas, options: FrontOptions) -> None:
        """Raises what `Engine` and `PtmMetrics.serve` raise."""
        self._options = options
        # Waiting for replicas would block the event loop that runs in this thread.
        with ThreadPoolExecutor(1) as thread:
            backend = thread.submit(ReplicatedBackend, replicas, threads=options.batches).result()
        self._card = backend.describe()
        engine = Engine(backend, time.monotonic, tenants=options.tenants, audit_file=options.audit)
        self._service = PtmService(engine, options.tenants, ServiceLimits())
        self._stopping = asyncio.Event()
        self._cleanup: asyncio.Task[None] | None = None
        if options.metrics is not None:
            self._service.metrics.serve(*options.metrics)

    async def card(self) -> ModelCard:
        """Returns the model's card."""
        return self._card

    async def queued_tokens(self) -> int:
        """Returns how many tokens wait to be computed, by which Ray scales the replicas."""
        return self._service.queued_tokens

    async def stop(self) -> None:
        """Reports NOT_SERVING to the clients that watch the service's health."""
        self._stopping.set()

    def check_peer(self, context: Context) -> None:
        """Raises PolicyForbids if the call comes from another machine and may not."""
        host = unquote(context.peer()).partition(":")[2].rpartition(":")[0]  # from "ipv6:%5B::1%5D:41234"
        if self._options.this_machine_only and not is_loopback(host):
            what = "calls from other machines would be unencrypted"
            fix = "a TLS proxy on this machine, or a service started with another --host and --insecure"
            raise PolicyForbids(what, where="peer", fix=fix)

    def service(self) -> PtmService:
        """Returns the service. Its periodic clean-up starts with the first call, when the event loop runs."""
        if self._cleanup is None:
            self._cleanup = asyncio.ensure_future(self._service.clean_up())
        return self._service

    Describe = _rpc(lambda service: service.Describe)
    RegisterTask = _rpc(lambda service: service.RegisterTask)
    RegisterExamples = _rpc(lambda service: service.RegisterExamples)
    Score = _rpc(lambda service: service.Score)
    Release = _rpc(lambda service: service.Release)
    GetUsage = _rpc(lambda service: service.GetUsage)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Answers Check of grpc.health.v1, which Ray does not implement."""
        response = self._health(request)
        if response.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            _set_status(grpc_context, NotFound(f"no service {request.service!r}", fix=SERVICE_NAME))
        return response

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answers Watch of grpc.health.v1."""
        yield self._health(request)
        await self._stopping.wait()
        yield self._health(request)

    def _health(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        status = health_pb2.HealthCheckResponse
        if request.service not in (SERVICE_NAME, health.OVERALL_HEALTH):
            return status(status=status.SERVICE_UNKNOWN)
        return status(status=status.NOT_SERVING if self._stopping.is_set() else status.SERVING)
