"""Unit tests stay within their process: no socket, no sleep."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import pytest


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        pytest.fail(f"this unit test {what}; tests that do belong into tests/scenarios")

    return refuse


@pytest.fixture(autouse=True)
def _no_sockets_and_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    new_socket, asyncio_sleep = socket.socket.__init__, asyncio.sleep
    refuse_socket, refuse_sleep = _refusal("opens a socket"), _refusal("sleeps")

    def local_socket(self: socket.socket, family: int = -1, *arguments: Any, **options: Any) -> None:
        if family != socket.AF_UNIX:
            refuse_socket()
        new_socket(self, family, *arguments, **options)

    async def yield_only(delay: float, result: Any = None) -> Any:
        if delay > 0:
            refuse_sleep()
        return await asyncio_sleep(0, result)

    monkeypatch.setattr(socket.socket, "__init__", local_socket)
    for module in (grpc, grpc.aio):
        for name in ("server", "insecure_channel", "secure_channel"):
            monkeypatch.setattr(module, name, refuse_socket)
    monkeypatch.setattr(time, "sleep", refuse_sleep)
    monkeypatch.setattr(asyncio, "sleep", yield_only)
