"""The errors that gRPC stubs raise, made without a server."""

from typing import Any

import grpc
from grpc_status import rpc_status

from fedbbpt.errors import FedbbptError
from fedbbpt.wire import status


class FailedCall(grpc.RpcError, grpc.Call):
    """The error that a stub raises if the service raised `error`."""

    def __init__(self, error: FedbbptError) -> None:
        self._status = rpc_status.to_status(status.to_status(error))

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
