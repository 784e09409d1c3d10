"""Addresses: what can be dialled, one server, several servers, loopback."""

import pytest

from fedbbpt.errors import FedbbptError, InvalidInput, Unavailable
from fedbbpt.wire.addresses import Server, check_host, is_loopback, parse_address
from fedbbpt.wire.balancing import target


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("hub.example.org:7000", [("hub.example.org", 7000)]),
        (" hub.example.org:7000\n", [("hub.example.org", 7000)]),
        ("hub.:80", [("hub.", 80)]),
        ("ptm_1:65535", [("ptm_1", 65535)]),
        ("[::1]:7000", [("::1", 7000)]),
        ("[fe80::1%eth0]:7000", [("fe80::1%eth0", 7000)]),
        ("dns:///hub:1", [("hub", 1)]),
        ("a:1, b:2", [("a", 1), ("b", 2)]),
        ("unix:/run/ptm.sock", []),
    ],
)
def test_addresses_are_read(text: str, servers: list[tuple[str, int]]) -> None:
    address = parse_address(text)
    assert address.servers == tuple(Server(*server) for server in servers)
    assert address.by_dns == text.startswith("dns:")


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "no address is given", "HOST:PORT, such as hub.example.org:7000"),
        ("  ", "no address is given", "HOST:PORT, such as hub.example.org:7000"),
        ("http://127.0.0.1:7000", "'http://127.0.0.1:7000' is a URL, not HOST:PORT", "127.0.0.1:7000"),
        ("https://hub.example.org/x", "is a URL", "hub.example.org:PORT"),
        ("dns://8.8.8.8/hub:1", "is a URL", "8.8.8.8:PORT"),
        ("hub:7000/path", "has a path after HOST:PORT", "hub:7000"),
        ("hub.example.org", "'hub.example.org' has no port", "hub.example.org:PORT"),
        ("dns:///hub", "'dns:///hub' has no port", "dns:///hub:PORT"),
        ("[::1]", "has no port", "[::1]:PORT"),
        (":7000", "has no host", "127.0.0.1:7000 for this machine"),
        ("127.0.0.1:seven", "'seven' in '127.0.0.1:seven' is not a port", "HOST:PORT, such as 127.0.0.1:7000"),
        ("127.0.0.1:70000", "'70000' in '127.0.0.1:70000' is not a port from 1 to 65535", "127.0.0.1:7000"),
        ("127.0.0.1:0", "is not a port from 1 to 65535", "127.0.0.1:7000"),
        ("127.0.0.1:-1", "is not a port", "127.0.0.1:7000"),
        ("127.0.0.1: 7000", "is not a port", "127.0.0.1:7000"),
        ("hub:\uff17000", "is not a port", "hub:7000"),
        ("hub:" + "9" * 5000, "is not a port", "hub:7000"),
        ("::1:7000", "is an IPv6 address without brackets", "[::1]:7000"),
        ("::1", "is an IPv6 address without brackets", "[::1]:PORT"),
        ("[::g]:7000", "'[::g]' is not an IPv6 address", "2001:db8::1"),
        ("[::1:7000", "is not an IPv6 address", "2001:db8::1"),
        ("a:1;b:2", "has several colons", "HOST:PORT"),
        ("256.1.1.1:1", "'256.1.1.1' is not an IPv4 address", "127.0.0.1"),
        ("127.1:1", "is not an IPv4 address", "127.0.0.1"),
        ("münchen.example:1", "is not a host name in ASCII", "xn--mnchen-3ya.example"),
        ("hub example:7000", "'hub example' is not a host name", "hub.example.org"),
        ("a..b:1", "is not a host name", "hub.example.org"),
        ("a" * 64 + ":1", "is not a host name", "hub.example.org"),
        ("*:7000", "is not a host name", "hub.example.org"),
        ("\x00:7000", "is not a host name", "hub.example.org"),
        ("a:1,", "has an empty item", "HOST:PORT,HOST:PORT,..."),
        ("a:1,b", "'b' has no port", "b:PORT"),
        ("unix:ptm.sock", "is not the absolute path of a socket", "unix:/PATH"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be_right(text: str, what: str, fix: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_address(text, "--coordinator")
    assert raised.value.where == "--coordinator"
    assert what in raised.value.what and fix in raised.value.fix


@pytest.mark.parametrize("text", ["anna:secret@hub:7000", "http://anna:secret@hub:7000"])
def test_a_password_is_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput, match="user in front of the host") as raised:
        parse_address(text)
    assert "secret" not in str(raised.value)


def test_a_list_is_refused_where_one_server_is_meant() -> None:
    with pytest.raises(InvalidInput, match="is a list"):
        parse_address("a:1,b:2", several=False)


@pytest.mark.parametrize("host", ["", "0.0.0.0:80", "http://a", "a b", "[::1"])
def test_a_host_to_listen_on_is_a_name_or_an_address(host: str) -> None:
    with pytest.raises(InvalidInput):
        check_host(host, "--host")
    assert check_host("[::]", "--host") == "::"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ptm.example.org:7001", "ptm.example.org:7001"),
        ("dns:///ptm.example.org:7001", "dns:///ptm.example.org:7001"),
        ("unix:/run/ptm.sock", "unix:/run/ptm.sock"),
        ("127.0.0.1:1,localhost:2,127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
    ],
)
def test_target_has_the_name_that_grpc_needs(address: str, name: str) -> None:
    found = target(parse_address(address), tls=False)
    assert found.name == name
    assert (any("round_robin" in str(option) for option in found.options)) == ("," in address or "dns" in address)


def test_a_list_without_any_known_name_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*query: object) -> None:
        raise OSError("no such name")

    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(Unavailable, match="none of the hosts can be resolved"):
        target(parse_address("a.example.org:1,b.example.org:1"), tls=False)


@pytest.mark.parametrize(
    ("address", "tls", "what"),
    [
        ("127.0.0.1:1,localhost:2", True, "2 different host names with TLS"),
        ("127.0.0.1:1,10.0.0.1:2", False, "through a proxy, but https_proxy names one for 10.0.0.1"),
    ],
)
def test_lists_that_one_channel_cannot_serve_are_refused(
    address: str, tls: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    with pytest.raises(FedbbptError) as raised:
        target(parse_address(address), tls=tls)
    assert what in raised.value.what and raised.value.where == address and raised.value.fix


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("LocalHost:1", True),
        ("0.0.0.0:1", True),
        ("[::]:1", True),
        ("dns:///localhost:1", True),
        ("unix:/run/ptm.sock", True),
        ("127.0.0.1:1,127.0.0.1:2", True),
        ("10.0.0.1:1", False),
        ("dns:///10.0.0.1:1", False),
    ],
)
def test_no_proxy_stands_before_this_machine(address: str, direct: bool) -> None:
    assert (("grpc.enable_http_proxy", 0) in target(parse_address(address), tls=False).options) == direct


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.org", False),
        ("localhost.example.org", False),
    ],
)
def test_is_loopback_recognises_addresses_of_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
