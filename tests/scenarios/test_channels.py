"""Channels to a service: a token never leaves this machine without encryption."""

import asyncio
import queue
import threading
from typing import Any

import grpc
import pytest

from fedbbpt.errors import InsecureAddress
from fedbbpt.wire.channel import bind, connect, create_server


@pytest.mark.parametrize("address", ["127.0.0.1:1,10.0.0.1:1", "dns:///ptm.example.org:7001", "10.0.0.1:1"])
def test_token_is_sent_unencrypted_to_loopback_only(address: str) -> None:
    with pytest.raises(InsecureAddress):
        connect(address, token="secret")
    connect("127.0.0.1:1,localhost:2", token="secret").close()


def test_calls_wait_while_the_event_loop_is_busy() -> None:
    """By default, gRPC ends a part of over a thousand waiting calls with CANCELLED."""
    asked, answered, ports = threading.Event(), threading.Event(), queue.Queue[int]()

    async def answer(request: bytes, context: object) -> bytes:
        return b"answer"

    async def serve() -> None:
        server = create_server("127.0.0.1")
        handlers: dict[str, Any] = {"Ask": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        port = bind(server, "127.0.0.1", 0)
        await server.start()
        ports.put(port)
        asked.wait()  # blocks the event loop, as a long step of a method does
        await asyncio.to_thread(answered.wait)
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        address = f"127.0.0.1:{ports.get()}"
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channels = [grpc.insecure_channel(address, options) for _ in range(3)]
        asks: list[Any] = [channel.unary_unary("/test.Service/Ask") for channel in channels]
        calls = [asks[i % 3].future(b"", timeout=60) for i in range(2500)]
        asked.set()
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
        for channel in channels:
            channel.close()
    finally:
        asked.set()
        answered.set()
        thread.join()
