"""The errors that gRPC stubs raise, made without a server."""

from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from fedbbpt.errors import FedbbptError
from fedbbpt.wire import status


class FailedCall(grpc.RpcError, grpc.Call):
    """The error that a stub raises if the service raised `error`, or if gRPC itself failed with a code and a text."""

    def __init__(self, error: FedbbptError | None, code: grpc.StatusCode = grpc.StatusCode.OK, text: str = "") -> None:
        sent = status.to_status(error) if error else status_pb2.Status(code=code.value[0], message=text)
        self._status = rpc_status.to_status(sent)

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._status.trailing_metadata

    def initial_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False
