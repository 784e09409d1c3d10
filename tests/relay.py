"""A PTM service that relays calls to another one, and breaks the contract on the way."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2_grpc

from fedbbpt.limits import MAX_MESSAGE_BYTES
from fedbbpt.ptm.v1 import ptm_pb2_grpc

Forward: TypeAlias = Callable[[Any], Any]
Break: TypeAlias = Callable[[str, Any, Forward], Any]
"""Takes the rpc, the request, and a function that calls the other service; returns the response."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
]


class Relay:
    """A relay on a loopback port.

    `token` replaces the token of the callers, and `plain` drops the details of errors.
    """

    def __init__(self, port: int, broken: Break, *, token: str = "", plain: bool = False) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", _OPTIONS)
        stub = ptm_pb2_grpc.PtmServiceStub(self._channel)

        def behaviour(rpc: str) -> Any:
            def answer(request: Any, context: grpc.ServicerContext) -> Any:
                shown = [pair for pair in context.invocation_metadata() if pair[0] == "authorization"]
                metadata = [("authorization", f"Bearer {token}")] if token else shown
                try:
                    return broken(rpc, request, lambda sent: getattr(stub, rpc)(sent, metadata=metadata))
                except grpc.RpcError as error:
                    assert isinstance(error, grpc.Call)
                    if not plain:
                        context.set_trailing_metadata(error.trailing_metadata())
                    context.abort(error.code(), error.details() or "")

            return answer

        rpcs = ("Describe", "RegisterTask", "RegisterExamples", "Score", "Release", "GetUsage")
        methods = {rpc: staticmethod(behaviour(rpc)) for rpc in rpcs}
        servicer = type("Servicer", (ptm_pb2_grpc.PtmServiceServicer,), methods)()
        health: Any = health_pb2_grpc.HealthServicer()
        other_health: Any = health_pb2_grpc.HealthStub(self._channel)
        health.Check = lambda request, context: other_health.Check(request)
        health.Watch = lambda request, context: iter([other_health.Check(request)])
        self._server = grpc.server(ThreadPoolExecutor(4), options=_OPTIONS)
        ptm_pb2_grpc.add_PtmServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._channel.close()
