"""The proxy for a host, as gRPC's C core finds it. tests/scenarios/test_proxies.py compares the rules with gRPC."""

import socket

import pytest

from fedbbpt.wire.addresses import Server, parse_address
from fedbbpt.wire.balancing import target
from fedbbpt.wire.proxies import bypasses_proxy, proxy_before, proxy_variable

PROXY = "http://proxy.example.org:3128"
NAMES = {
    "laptop": ["127.0.1.1"],
    "ip6-localhost": ["::1"],
    "localhost.localdomain": ["127.0.0.1", "::1"],
    "hub": ["10.0.0.7"],
    "half": ["127.0.0.1", "10.0.0.7"],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets the resolver know NAMES alone, and returns the hosts that it is asked for."""
    hosts: list[str] = []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        hosts.append(host)
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("laptop", True),
        ("ip6-localhost", True),
        ("localhost.localdomain", True),
        ("hub", False),
        ("half", False),
        ("unknown", False),
    ],
)
def test_a_name_of_this_machine_bypasses_the_proxy(
    host: str, direct: bool, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a call to the machine's own name, 127.0.1.1 on Debian, that a proxy is asked to connect."""
    monkeypatch.setenv("https_proxy", PROXY)
    assert bypasses_proxy(Server(host, 7000)) is direct
    assert proxy_before(Server(host, 7000)) == ("" if direct else "https_proxy")
    for address in (f"{host}:7000", f"dns:///{host}:7000"):
        options = target(parse_address(address), tls=False).options
        assert (("grpc.enable_http_proxy", 0) in options) is direct
    assert set(asked) == {host}


def test_a_name_is_looked_up_only_if_a_proxy_would_stand_before_it(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "hub")
    assert not bypasses_proxy(Server("hub", 7000)) and proxy_before(Server("hub", 7000)) == ""
    assert bypasses_proxy(Server("localhost", 7000)) and bypasses_proxy(Server("127.0.1.1", 7000))
    monkeypatch.setenv("https_proxy", "")
    assert not bypasses_proxy(Server("laptop", 7000))
    assert asked == []


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, ""),
        ({"http_proxy": PROXY}, "http_proxy"),
        ({"http_proxy": "http://anna:secret@proxy:3128"}, "http_proxy"),
        ({"http_proxy": PROXY, "https_proxy": PROXY}, "https_proxy"),
        ({"http_proxy": PROXY, "https_proxy": PROXY, "grpc_proxy": PROXY}, "grpc_proxy"),
        ({"http_proxy": PROXY, "https_proxy": ""}, ""),
        ({"HTTP_PROXY": PROXY, "all_proxy": PROXY}, ""),
        ({"http_proxy": "proxy.example.org:3128"}, ""),
        ({"https_proxy": "https://proxy.example.org:3128"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "a.org, HUB.example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": ".example.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "xample.org"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "*.example.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "*"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_proxy": "hub.example.org:7000"}, "http_proxy"),
        ({"http_proxy": PROXY, "NO_PROXY": "hub.example.org"}, "http_proxy"),
        ({"http_proxy": PROXY, "no_grpc_proxy": "a.org", "no_proxy": "hub.example.org"}, "http_proxy"),
    ],
)
def test_the_environment_names_the_proxy_of_a_host(environment: dict[str, str], variable: str) -> None:
    assert proxy_variable("hub.example.org", environment) == variable


@pytest.mark.parametrize(("host", "covered"), [("10.1.2.3", True), ("11.1.2.3", False), ("10.example.org", False)])
def test_an_exception_may_be_a_network(host: str, covered: bool) -> None:
    assert proxy_variable(host, {"http_proxy": PROXY, "no_proxy": "10.0.0.0/8"}) == ("" if covered else "http_proxy")
