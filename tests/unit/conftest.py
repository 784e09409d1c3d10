"""Unit tests stay within their process: no socket, no sleep."""

import asyncio
import socket
import sys
import time
from typing import Any, NoReturn

import grpc
import pytest


def _refuse(what: str) -> NoReturn:
    pytest.fail(f"this unit test {what}; tests that do belong in tests/scenarios")


def _caller_is_ours() -> bool:
    """Says whether this package or its tests made the call: libraries such as torch sleep as they please."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).partition(".")[0] in ("fedbbpt", "tests")


@pytest.fixture(autouse=True)
def _no_sockets_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    new_socket, sleep, asyncio_sleep = socket.socket.__init__, time.sleep, asyncio.sleep

    def local_socket(self: socket.socket, family: int = -1, *arguments: Any, **options: Any) -> None:
        if family != socket.AF_UNIX:  # the family of the pair in each event loop
            _refuse("opens a socket")
        new_socket(self, family, *arguments, **options)

    def no_channel(*arguments: Any, **options: Any) -> NoReturn:
        _refuse("opens a gRPC channel or server")

    def library_sleep(seconds: float) -> None:
        if _caller_is_ours():
            _refuse("sleeps")
        sleep(seconds)

    def yield_only(delay: float, result: Any = None) -> Any:
        if delay > 0 and _caller_is_ours():
            _refuse("sleeps")
        return asyncio_sleep(delay, result)

    monkeypatch.setattr(socket.socket, "__init__", local_socket)
    for module in (grpc, grpc.aio):
        for name in ("server", "insecure_channel", "secure_channel"):
            monkeypatch.setattr(module, name, no_channel)
    monkeypatch.setattr(time, "sleep", library_sleep)
    monkeypatch.setattr(asyncio, "sleep", yield_only)
