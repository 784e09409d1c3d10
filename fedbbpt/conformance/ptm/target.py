"""Calls the service under test with one caller's token.

Failed calls are not translated into fedbbpt's errors, since a case judges the status codes and details themselves.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from fedbbpt.errors import PtmUnavailable
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.wire.channel import connect
from fedbbpt.wire.checksums import CHECKSUM_BYTES
from fedbbpt.wire.messages.durations import seconds_of
from fedbbpt.wire.peers import PTM, line_of
from fedbbpt.wire.status import DOMAIN
from fedbbpt.wire.tls import ClientTls

OVERLOADED_TIMES = 20
"""How often a call is repeated while the service answers with RetryInfo."""
UNLIMITED = -1
"""gRPC's value for no limit on a message's size."""


class Refused(Exception):
    """The status of a failed call: the name of its code, its text, and the details that the protocol defines."""

    def __init__(self, code: str, text: str, reason: str = "", retry_seconds: float | None = None) -> None:
        super().__init__(f"{code} {reason or '(without ErrorInfo)'}: {text}")
        self.code, self.text, self.reason, self.retry_seconds = code, text, reason, retry_seconds


class Target:
    """A connection to the service that uses one token, or none."""

    def __init__(
        self, address: str, tls: ClientTls | None, token: str, call_seconds: float, pause: Callable[[float], None]
    ) -> None:
        """Opens a channel without waiting for the service."""
        self._channel = connect(address, tls, token, peer=PTM, max_message_bytes=UNLIMITED)
        self.added_bytes = CHECKSUM_BYTES if tls is None else 0
        """What the channel adds to each message on the wire."""
        self._stub = PtmServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._call_seconds, self._address, self._pause = call_seconds, address, pause

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def wait(self, seconds: float) -> None:
        """Waits for a connection. Raises PtmUnavailable if there is none after `seconds`."""
        try:
            grpc.channel_ready_future(self._channel).result(seconds)
        except grpc.FutureTimeoutError:
            fix = "the address of a running service"
            silent = PtmUnavailable(f"no answer within {seconds:g} s", where=self._address, fix=fix)
            raise line_of(self._channel).cause(PtmUnavailable) or silent from None

    def call(self, rpc: str, request: Any, *, seconds: float | None = None) -> Any:
        """Returns the response, after retries if the service answers with RetryInfo. Raises Refused."""
        for attempt in range(OVERLOADED_TIMES + 1):
            try:
                return getattr(self._stub, rpc)(request, timeout=seconds or self._call_seconds)
            except grpc.RpcError as error:
                refused = _read(error)
            if refused.code != "RESOURCE_EXHAUSTED" or refused.retry_seconds is None or attempt == OVERLOADED_TIMES:
                break
            self._pause(refused.retry_seconds)
        raise refused

    def cancel(self, rpc: str, request: Any) -> None:
        """Makes a call and cancels it at once."""
        call = getattr(self._stub, rpc).future(request, timeout=self._call_seconds)
        call.cancel()

    def health(self, service: str) -> str:
        """Returns the status of grpc.health.v1, such as "SERVING", from Check and Watch. Raises Refused."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            checked = self._health.Check(request, timeout=self._call_seconds).status
            watch = self._health.Watch(request, timeout=self._call_seconds)
            watched = next(iter(watch)).status
            watch.cancel()
        except grpc.RpcError as error:
            raise _read(error) from None
        name = health_pb2.HealthCheckResponse.ServingStatus.Name
        return str(name(checked)) if checked == watched else f"{name(checked)} to Check and {name(watched)} to Watch"


def _read(error: grpc.RpcError) -> Refused:
    assert isinstance(error, grpc.Call), "gRPC raises the failed call itself"
    code, text, reason, retry_seconds = error.code().name, error.details() or "", "", None
    try:
        status = rpc_status.from_call(error)
    except ValueError as problem:  # the details contradict the status's code or text
        return Refused(code, f"{text} ({problem})")
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(retry):
            retry_seconds = seconds_of(retry.retry_delay)
    return Refused(code, text, reason, retry_seconds)
