"""Addresses: one server, several servers, loopback."""

import pytest

from fedbbpt.errors import FedbbptError, InvalidInput, Unavailable
from fedbbpt.wire.addresses import is_loopback
from fedbbpt.wire.balancing import target


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ptm.example.org:7001", "ptm.example.org:7001"),
        ("dns:///ptm.example.org:7001", "dns:///ptm.example.org:7001"),
        ("127.0.0.1:1,localhost:2,127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("127.0.0.1:1,no..name:2", "ipv4:127.0.0.1:1"),
    ],
)
def test_target_has_the_name_that_grpc_needs(address: str, name: str) -> None:
    found = target(address, tls=False)
    assert found.name == name
    assert (any("round_robin" in str(option) for option in found.options)) == ("," in address or "dns" in address)


@pytest.mark.parametrize(
    ("address", "tls", "error"),
    [
        ("127.0.0.1:1,", False, InvalidInput),
        ("127.0.0.1:1,localhost", False, InvalidInput),
        ("127.0.0.1:1,127.0.0.1:65536", False, InvalidInput),
        ("127.0.0.1:1,localhost:2", True, InvalidInput),
        ("no..name:1,no..name:2", False, Unavailable),
    ],
)
def test_invalid_lists_of_servers_are_rejected(address: str, tls: bool, error: type[FedbbptError]) -> None:
    with pytest.raises(error) as raised:
        target(address, tls=tls)
    assert raised.value.where == address and raised.value.fix


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.org", False),
    ],
)
def test_is_loopback_recognises_addresses_of_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
