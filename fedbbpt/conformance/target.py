"""The service under test, as one caller sees it. An edge file.

Beneath the errors of fedbbpt: a case judges codes and details as they come.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from fedbbpt.errors import PtmUnavailable
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.wire.channel import PTM_KEEPALIVE_SECONDS, connect
from fedbbpt.wire.status import DOMAIN
from fedbbpt.wire.tls import ClientTls

OVERLOADED_TIMES = 20
"""A call is made again so often where the service says when."""
UNLIMITED = -1


class Refused(Exception):
    """The status of a call that failed: the name of its code, and its details."""

    def __init__(self, code: str, text: str, reason: str = "", retry_seconds: float | None = None) -> None:
        super().__init__(f"{code} {reason or '(without a reason of ours)'}: {text}")
        self.code, self.text, self.reason, self.retry_seconds = code, text, reason, retry_seconds


class Target:
    """Calls with one token, or with none."""

    def __init__(
        self, address: str, tls: ClientTls | None, token: str, call_seconds: float, pause: Callable[[float], None]
    ) -> None:
        """Opens a channel, which does not wait for the service."""
        self._channel = connect(
            address, tls, token, max_message_bytes=UNLIMITED, keepalive_seconds=PTM_KEEPALIVE_SECONDS
        )
        self._stub = PtmServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._call_seconds, self._address, self._pause = call_seconds, address, pause

    def close(self) -> None:
        self._channel.close()

    def wait(self, seconds: float) -> None:
        """Until there is a connection. Raises PtmUnavailable."""
        try:
            grpc.channel_ready_future(self._channel).result(seconds)
        except grpc.FutureTimeoutError:
            fix = "the address of a running service"
            raise PtmUnavailable(f"nobody answers within {seconds:g} s", where=self._address, fix=fix) from None

    def call(self, rpc: str, request: Any, *, seconds: float | None = None) -> Any:
        """The response; a service that says when to come again is asked again then. Raises Refused."""
        for attempt in range(OVERLOADED_TIMES + 1):
            try:
                return getattr(self._stub, rpc)(request, timeout=seconds or self._call_seconds)
            except grpc.RpcError as error:
                refused = _read(error)
            if refused.code != "RESOURCE_EXHAUSTED" or refused.retry_seconds is None or attempt == OVERLOADED_TIMES:
                break
            self._pause(refused.retry_seconds)
        raise refused

    def give_up(self, rpc: str, request: Any) -> None:
        """Makes a call and cancels it, soon or at once."""
        call = getattr(self._stub, rpc).future(request, timeout=self._call_seconds)
        call.cancel()

    def health(self, service: str) -> str:
        """ "SERVING" or another status of grpc.health.v1, as both its calls say. Raises Refused."""
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
    assert isinstance(error, grpc.Call), "every error of a call that was made is its call"
    code, text, reason, retry_seconds = error.code().name, error.details() or "", "", None
    try:
        status = rpc_status.from_call(error)
    except ValueError as problem:  # the details tell another code or text than the status
        return Refused(code, f"{text} ({problem})")
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return Refused(code, text, reason, retry_seconds)
