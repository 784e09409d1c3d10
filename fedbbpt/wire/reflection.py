"""Server reflection, by which tools such as grpcurl read a service's messages, under both names that tools ask for."""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""The stable name, and the one before it. The messages of both have the same bytes."""


def add_reflection(services: Sequence[str], server: Any) -> None:
    """Adds reflection of these services, and of itself, to a server."""
    servicer: Any = reflection.aio.ReflectionServicer(service_names=[*services, *NAMES])
    for name in NAMES:
        handler: Any = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((handlers,))
