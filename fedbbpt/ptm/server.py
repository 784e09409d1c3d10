"""Starts and stops a gRPC server of the PTM service, with health and reflection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedbbpt.errors import FedbbptError
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.service import PtmService, ServiceLimits
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.wire.admission import AdmissionInterceptor
from fedbbpt.wire.channel import bind, create_server
from fedbbpt.wire.reflection import add_reflection
from fedbbpt.wire.tls import ServerCertificates, ServerTls

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["PtmService"]
SERVICE_NAME = DESCRIPTOR.full_name

Rpc: TypeAlias = Callable[[Any, Tenant], Awaitable[Message | bytes]]
"""An rpc of `PtmService`: takes a request and its tenant, and returns the reply, serialised or not."""


def serialise(reply: Message | bytes) -> bytes:
    """Returns the bytes of a reply; those that are serialised already pass through."""
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def handlers(service: PtmService, tenant: Callable[[], Tenant]) -> grpc.GenericRpcHandler:
    """Returns the handlers of all rpcs of the service. `tenant` returns the tenant of the current call."""

    def behaviour(rpc: Rpc) -> Callable[[Any, Any], Awaitable[Message | bytes]]:
        async def answer(request: Any, context: Any) -> Message | bytes:
            return await rpc(request, tenant())

        return answer

    by_name = {
        method.name: grpc.unary_unary_rpc_method_handler(
            behaviour(getattr(service, method.name)),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=serialise,
        )
        for method in DESCRIPTOR.methods
    }
    return grpc.method_handlers_generic_handler(SERVICE_NAME, by_name)


@dataclass(frozen=True, slots=True)
class PtmServer:
    """A started server."""

    server: grpc.aio.Server
    port: int
    service: PtmService
    health: health.aio.HealthServicer
    cleanup: "asyncio.Task[None]"
    certificates: ServerCertificates | None

    async def reload(self, tenants: Tenants) -> None:
        """Reads the TLS files again, and serves these tenants in place of the old.

        Raises InvalidInput, and AuditBroken or StoreError if a new tenant's usage cannot be read from the audit log.
        """
        if self.certificates is not None:
            self.certificates.reload()
        await self.service.adopt(tenants)

    async def stop(self, grace_seconds: float | None) -> None:
        """Reports NOT_SERVING, gives open calls `grace_seconds` to end, and stops. None stops at once."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_seconds)
        self.cleanup.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.service.close)


async def serve(
    engine: Engine,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ServerTls | None = None,
    tenants: Tenants | None = None,
    insecure: bool = False,
    limits: ServiceLimits | None = None,
) -> PtmServer:
    """Starts a server of the PTM, of its health and of reflection.

    Args:
        engine: The engine that answers.
        host: The address to listen on.
        port: 0 takes a free port.
        tls: The certificate and key; None listens without TLS.
        tenants: The tenants that may call; with None, every caller is the same tenant.
        insecure: Whether to listen on `host` without TLS even if other machines can reach it.
        limits: Limits of the service; None takes the defaults.

    Raises:
        PortTaken: The port cannot be bound.
        InsecureAddress: Other machines can reach `host`, without TLS and without `insecure`.
        InvalidInput: A TLS file is invalid.
    """
    limits = limits or ServiceLimits()
    certificates = ServerCertificates(tls) if tls else None
    service = PtmService(engine, tenants or Tenants.anyone(), limits)
    admission = AdmissionInterceptor(service.identify, limits.tenant_calls)
    server = create_server(host, interceptors=[admission], strangers=limits.strangers)
    server.add_generic_rpc_handlers((handlers(service, admission.caller),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in (SERVICE_NAME, health.OVERALL_HEALTH):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    add_reflection([SERVICE_NAME, health.SERVICE_NAME], server)
    try:
        bound = bind(server, host, port, certificates, insecure=insecure)
    except FedbbptError:
        service.close()
        raise
    await server.start()
    return PtmServer(server, bound, service, servicer, asyncio.ensure_future(service.clean_up()), certificates)
