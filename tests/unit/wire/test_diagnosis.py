"""Causes of failed connections that need no connection. tests/scenarios/test_connection_causes.py has the others."""

import socket

import pytest

from fedbbpt.errors import Unavailable
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.diagnosis import find_cause
from fedbbpt.wire.peers import COORDINATOR


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*query: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def test_an_unknown_name_is_told_as_such_and_may_become_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    cause = find_cause(parse_address("hub.example.org:7000"), None, COORDINATOR)
    assert isinstance(cause, Unavailable) and cause.where == "hub.example.org:7000"
    assert cause.what == "the name hub.example.org cannot be resolved: Name or service not known"


def test_a_server_behind_a_proxy_is_not_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    assert find_cause(parse_address("hub.example.org:7000"), None, COORDINATOR) is None
