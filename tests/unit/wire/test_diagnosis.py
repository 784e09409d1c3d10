"""Causes of failed connections that need no connection. tests/scenarios/test_connection_causes.py has the others."""

import socket

import pytest

from fedbbpt.errors import FedbbptError, TlsFailed, Unavailable
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.diagnosis import find_cause
from fedbbpt.wire.peers import COORDINATOR


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*query: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def test_an_unknown_name_is_told_as_such_and_may_become_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    cause = find_cause(parse_address("hub.example.org:7000"), None, COORDINATOR)
    assert isinstance(cause, Unavailable) and cause.where == "hub.example.org:7000"
    assert cause.what == "the name hub.example.org cannot be resolved: Name or service not known"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: Connection refused", Unavailable),
        ("last error: UNKNOWN: SSL routines: CERTIFICATE_VERIFY_FAILED: certificate has expired", TlsFailed),
    ],
)
def test_behind_a_proxy_the_cause_is_what_grpc_says(
    text: str, error: type[FedbbptError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://anna:secret@proxy.example.org:3128")
    cause = find_cause(parse_address("hub.example.org:7000"), None, COORDINATOR, text)
    assert type(cause) is error
    assert "through the proxy that https_proxy names (UNKNOWN: " in cause.what and "secret" not in str(cause)
