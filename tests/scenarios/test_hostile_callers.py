"""What strangers and tenants could do to a PTM service and to each other, and that they cannot."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from fedbbpt.errors import (
    DeadlineExceeded,
    InvalidExamples,
    InvalidRequest,
    Overloaded,
    PtmUnavailable,
    Unauthenticated,
)
from fedbbpt.ptm.backends.fake import Fake
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.service import Bounds
from fedbbpt.ptm.tenants import Tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import Examples, Perturbation, TaskSpec, TextPrompts
from fedbbpt.wire import channel, ptm_messages
from fedbbpt.wire.admission import Room
from fedbbpt.wire.channel import connect
from fedbbpt.wire.status import from_rpc_error
from tests.scenarios.test_ptm_service import Gated

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who wrote it", "how many people", "where is it"))
PROMPTS = TextPrompts(("which kind", "what"))
SCORE = "/fedbbpt.ptm.v1.PtmService/Score"


def remote(port: int, token: str = "") -> RemotePtm:
    return RemotePtm(connect(f"127.0.0.1:{port}", token=token), call_seconds=60.0, patience_seconds=0.0)


def register(ptm: RemotePtm) -> str:
    return ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id


class Unsent:
    """Calls whose message never comes."""

    def __init__(self, port: int, token: str = "") -> None:
        self._over, self._channel = threading.Event(), connect(f"127.0.0.1:{port}", token=token)

    def open(self, path: str = SCORE) -> Any:
        """An open call, of a caller who has all the time in the world."""

        def nothing() -> Iterator[bytes]:
            self._over.wait()
            yield from ()

        return self._channel.stream_unary(path).future(nothing(), timeout=300.0)

    def close(self) -> None:
        self._over.set()
        self._channel.close()


@pytest.fixture
def unsent() -> Iterator[Callable[..., Unsent]]:
    made: list[Unsent] = []

    def make(port: int, token: str = "") -> Unsent:
        made.append(Unsent(port, token))
        return made[-1]

    yield make
    for one in made:
        one.close()


def error_of(call: Any) -> Exception:
    """How a call ends."""
    with pytest.raises(grpc.RpcError) as raised:
        call.result(timeout=60.0)
    return from_rpc_error(raised.value, PtmUnavailable)


def test_strangers_take_no_calls_up(
    ptm_servers: Any, unsent: Callable[..., Unsent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused before they have sent anything, and leave room for others."""
    monkeypatch.setattr(channel, "MAX_CONCURRENT_CALLS", 8)
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(["one"]))
    strangers = unsent(port)
    for call in [strangers.open() for _ in range(16)]:
        assert isinstance(error_of(call), Unauthenticated)
    assert remote(port, "one").describe().revision == "fake-1"


def test_what_a_stranger_sends_is_not_parsed(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=Tenants.of_tokens(["one"]))
    for token, error in (("", Unauthenticated), ("one", InvalidRequest)):
        with connect(f"127.0.0.1:{port}", token=token) as line:
            assert isinstance(error_of(line.unary_unary(SCORE).future(b"\xff" * 100_000, timeout=60.0)), error)


def test_a_caller_has_so_many_calls_and_so_much_time(ptm_servers: Any, unsent: Callable[..., Unsent]) -> None:
    room = Room(calls=2, arriving=1, seconds=2.0)
    tenants = Tenants.of_tokens(["one", "two"])
    bounds = Bounds(callers=room, strangers=room)
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tenants=tenants, bounds=bounds)
    for token, path in (("one", SCORE), ("", "/grpc.health.v1.Health/Check")):
        caller = unsent(port, token)
        errors = [error_of(call) for call in [caller.open(path) for _ in range(3)]]
        assert sorted(type(error).__name__ for error in errors) == ["DeadlineExceeded"] * 2 + ["Overloaded"]
    assert remote(port, "two").describe().revision == "fake-1"
