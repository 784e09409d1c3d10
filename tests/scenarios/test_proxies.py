"""HTTP proxies: none stands before this machine's loopback, and other addresses follow the environment as in gRPC.

tests/conftest.py names a proxy that refuses connections, so every test with real processes shows that none of them asks
it for a way to loopback.
"""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from fedbbpt.errors import Unauthenticated
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.wire.addresses import Server
from fedbbpt.wire.channel import connect
from fedbbpt.wire.proxies import bypasses_proxy, proxy_variable


class RefusingProxy:
    """A proxy that opens no tunnel, and keeps the first line of each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller:
                self.asked.append(caller.recv(4096).decode().partition("\r\n")[0])
                caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    """The proxy that the environment names for everything."""
    made = RefusingProxy()
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, made.url)
    yield made
    made.close()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:{}", "dns:///localhost:{}", "127.0.0.1:{},localhost:{}"]
)
def test_nothing_for_this_machine_goes_to_a_proxy(address: str, ptm_servers: Any, proxy: RefusingProxy) -> None:
    """Kills: a local run that fails, or sends its token in clear through the proxy."""
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    with connect(address.replace("{}", str(port)), token="secret") as channel:
        assert RemotePtm(channel).describe().model == "fake"
    assert proxy.asked == []


def test_the_name_of_this_machine_leads_to_no_proxy(ptm_servers: Any, proxy: RefusingProxy) -> None:
    """Kills: a service at the machine's own name that only a proxy is asked for, which cannot reach it."""
    name = socket.gethostname()
    if not bypasses_proxy(Server(name, 1)):
        pytest.skip("this machine's name does not lead to loopback alone")
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    with connect(f"{name}:{port}") as channel:
        assert RemotePtm(channel).describe().model == "fake"
    assert proxy.asked == []


def test_other_addresses_follow_the_environment(proxy: RefusingProxy) -> None:
    with connect("hub.example.org:7001") as channel, pytest.raises(Unauthenticated) as raised:
        RemotePtm(channel)
    assert "the proxy that the environment names opens no tunnel (HTTP 403 Forbidden)" in str(raised.value)
    assert "no_proxy" in raised.value.fix
    assert proxy.asked[0] == "CONNECT hub.example.org:7001 HTTP/1.1"


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "http_proxy": {"http_proxy": "{}"},
    "grpc_proxy": {"grpc_proxy": "{}"},
    "an empty variable": {"http_proxy": "{}", "https_proxy": ""},
    "upper case": {"HTTP_PROXY": "{}", "ALL_PROXY": "{}"},
    "no scheme": {"http_proxy": "127.0.0.1:9"},
    "a name": {"http_proxy": "{}", "no_proxy": "a, LOCALHOST"},
    "a part of a name": {"http_proxy": "{}", "no_proxy": "host"},
    "a wildcard": {"http_proxy": "{}", "no_proxy": "*"},
    "a name with a port": {"http_proxy": "{}", "no_proxy": "localhost:1"},
    "no_grpc_proxy": {"http_proxy": "{}", "no_grpc_proxy": "localhost", "no_proxy": "a"},
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_the_rules_are_those_of_grpc(case: str, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares `proxy_variable` with where gRPC itself goes."""
    environment = {name: value.replace("{}", proxy.url) for name, value in ENVIRONMENTS[case].items()}
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(grpc.RpcError):
        PtmServiceStub(channel).Describe(pb.DescribeRequest())
    assert bool(proxy.asked) == bool(proxy_variable("localhost", environment))
