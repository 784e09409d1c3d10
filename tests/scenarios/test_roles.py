"""Every rpc of both services, called over gRPC with the token of each role."""

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from fedbbpt.identity.roles import Role, roles_of
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.v1 import ptm_pb2
from fedbbpt.v1 import coordinator_pb2, run_pb2
from fedbbpt.wire.channel import connect
from tests.hub import Hub

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def methods(*services: ServiceDescriptor) -> list[MethodDescriptor]:
    return [method for service in services for method in service.methods]


COORDINATOR = methods(
    *coordinator_pb2.DESCRIPTOR.services_by_name.values(), *run_pb2.DESCRIPTOR.services_by_name.values()
)
PTM = methods(*ptm_pb2.DESCRIPTOR.services_by_name.values())


def path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def code(channel: grpc.Channel, rpc: str, *, requests: bool = False, responses: bool = False) -> grpc.StatusCode:
    """Calls an rpc with an empty message, or a stream of none, and returns how it ends, or OK if it answers."""
    kinds: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    sent = iter(()) if requests else b""
    try:
        answer = kinds[requests, responses](rpc)(sent, timeout=60.0)
        if responses:
            next(answer)
            answer.cancel()
    except StopIteration:
        pass
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code()
    return grpc.StatusCode.OK


def check(channel: grpc.Channel, role: Role, rpcs: list[MethodDescriptor]) -> None:
    for method in rpcs:
        found = code(channel, path(method), requests=method.client_streaming, responses=method.server_streaming)
        refused = found is grpc.StatusCode.PERMISSION_DENIED
        assert refused == (role not in roles_of(path(method))), (role, method.name, found)
        assert found is not grpc.StatusCode.UNAUTHENTICATED
    assert code(channel, REFLECTION, requests=True, responses=True) is grpc.StatusCode.OK


@pytest.mark.parametrize("role", Role)
def test_a_coordinator_lets_each_role_make_its_calls_and_no_others(hub: Hub, role: Role) -> None:
    with hub.channel("client-0000" if role is Role.CLIENT else role) as channel:
        check(channel, role, COORDINATOR)


@pytest.mark.parametrize("role", Role)
def test_a_ptm_service_lets_each_role_make_its_calls_and_no_others(ptm_servers: Any, role: Role) -> None:
    tenants = Tenants.of_tokens([Token("north", role, token_digest("token"))])
    port = ptm_servers.start(Engine(Fake(), time.monotonic, tenants=tenants), tenants=tenants)
    with connect(f"127.0.0.1:{port}", token="token") as channel:
        check(channel, role, PTM)


def test_strangers_may_ask_for_health_and_nothing_else(hub: Hub, ptm_servers: Any) -> None:
    tenants = Tenants.of_tokens([Token("north", Role.CLIENT, token_digest("token"))])
    port = ptm_servers.start(Engine(Fake(), time.monotonic, tenants=tenants), tenants=tenants)
    for address, rpcs in ((f"127.0.0.1:{hub.serving.port}", COORDINATOR), (f"127.0.0.1:{port}", PTM)):
        with connect(address) as channel:
            assert code(channel, "/grpc.health.v1.Health/Check") in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
            assert code(channel, REFLECTION, requests=True, responses=True) is grpc.StatusCode.UNAUTHENTICATED
            for method in rpcs:
                kind = {"requests": method.client_streaming, "responses": method.server_streaming}
                assert code(channel, path(method), **kind) is grpc.StatusCode.UNAUTHENTICATED, method.name
