"""Bad connections between clients and coordinator: cut at any byte, with changed bytes, lost replies, or silent.

In each case the run ends with the bits of an undisturbed run, and no client is counted twice.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation.splits import Splits
from fedbbpt.types import Receipt
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.tensors import bundle
from tests.federation import AdvancingLoop, Client, OverGrpc, Security, play
from tests.slow import slow_except
from tests.tiny_run import CLIENTS, ROUNDS, Course, fake_ptm, undisturbed

HEARTBEAT_SECONDS = 0.05
IMPATIENT_CALL_SECONDS = 0.3
"""Short, so that silence is noticed soon. On a slow machine calls may be repeated, which must not change the result."""
each_number_of_steps = pytest.mark.parametrize("steps", slow_except([2, 10], 2))


class Way(Enum):
    UP = auto()
    DOWN = auto()


class Then(Enum):
    """The fate of a connection after a piece of its bytes was handled."""

    GO_ON = auto()
    CUT = auto()
    FREEZE = auto()
    """The connection stays open, and no more bytes pass."""


Pair: TypeAlias = tuple[asyncio.StreamWriter, asyncio.StreamWriter]
"""The writers to the client and to the coordinator."""
Fault: TypeAlias = Callable[[Way, int, bytes], tuple[bytes, Then]]
"""(direction, position of the piece in that direction, piece) -> (the bytes to forward, the fate after them)."""


def no_fault(way: Way, position: int, data: bytes) -> tuple[bytes, Then]:
    return data, Then.GO_ON


@dataclass
class At:
    """A fault that strikes once, at byte `byte` of its direction."""

    way: Way
    byte: int
    then: Then
    flipped: int = 0
    """The bits to flip in this byte. If any, the byte is forwarded."""
    struck: bool = False

    def __call__(self, way: Way, position: int, data: bytes) -> tuple[bytes, Then]:
        offset = self.byte - position
        if self.struck or way is not self.way or offset >= len(data):
            return data, Then.GO_ON
        self.struck = True
        if self.flipped:
            return data[:offset] + bytes([data[offset] ^ self.flipped]) + data[offset + 1 :], self.then
        return data[:offset], self.then


@dataclass
class FlipInside:
    """A fault that flips one bit of the first `pattern` that passes."""

    way: Way
    pattern: bytes
    struck: bool = False

    def __call__(self, way: Way, position: int, data: bytes) -> tuple[bytes, Then]:
        offset = data.find(self.pattern)
        if self.struck or way is not self.way or offset < 0:
            return data, Then.GO_ON
        self.struck = True
        return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :], Then.GO_ON


@dataclass
class CutBefore:
    """A fault that cuts the connection at the first piece with `pattern`, which is lost."""

    way: Way
    pattern: bytes
    struck: bool = False

    def __call__(self, way: Way, position: int, data: bytes) -> tuple[bytes, Then]:
        if self.struck or way is not self.way or self.pattern not in data:
            return data, Then.GO_ON
        self.struck = True
        return b"", Then.CUT


@dataclass
class Proxy:
    """Forwards connections to a port of this machine, with a fault."""

    target: int
    fault: Fault = no_fault
    passed: dict[Way, int] = field(default_factory=lambda: {Way.UP: 0, Way.DOWN: 0})
    _open: set[Pair] = field(default_factory=set)
    _frozen: set[Pair] = field(default_factory=set)

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends the open connections; new ones are accepted."""
        for pair in self._open:
            _abort(pair)

    async def thaw(self) -> None:
        """Ends the frozen connections, as keepalive does after its timeout."""
        for pair in self._frozen:
            _abort(pair)
        self._frozen.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        pair = (writer, there_writer)
        self._open.add(pair)
        await asyncio.gather(self._pump(Way.UP, reader, pair), self._pump(Way.DOWN, there_reader, pair))
        self._open.discard(pair)

    async def _pump(self, way: Way, reader: asyncio.StreamReader, pair: Pair) -> None:
        writer = pair[way is Way.UP]
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if pair in self._frozen:
                    continue
                forwarded, then = self.fault(way, self.passed[way], data)
                self.passed[way] += len(data)
                writer.write(forwarded)
                await writer.drain()
                if then is Then.CUT:
                    break
                if then is Then.FREEZE:
                    self._frozen.add(pair)
        _abort(pair)


def _abort(pair: Pair) -> None:
    for writer in pair:
        writer.transport.abort()


class BadConnection:
    """A federation whose clients connect through a proxy."""

    def __init__(self, splits: Splits, path: Path, loop: AdvancingLoop, security: Security | None) -> None:
        self._loop = loop
        self.federation = OverGrpc(splits, path, loop, security, HEARTBEAT_SECONDS)
        self.proxy = Proxy(self.federation.port)
        self._port = asyncio.run_coroutine_threadsafe(self.proxy.start(), loop).result()

    def client(self, index: int, call_seconds: float = 30.0) -> Client:
        link = RemoteCoordinator(self.federation.channel(self._port), call_seconds=call_seconds, pause=self._pause)
        return self.federation.client(index, link=link, ptm=fake_ptm())

    def _pause(self, seconds: float) -> None:
        self.call(self.proxy.thaw())
        time.sleep(seconds)

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(self) -> Course:
        """Runs all clients to the end, each in its own thread."""

        def work(index: int) -> None:
            client = self.client(index, IMPATIENT_CALL_SECONDS)
            client.agent.run(client.link, wait=lambda: None)

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, range(CLIENTS)))
        return self.federation.course()

    def close(self) -> None:
        self.call(self.proxy.stop())
        self.federation.close()


MakeConnection: TypeAlias = Callable[[Security | None], contextlib.AbstractContextManager[BadConnection]]


@pytest.fixture
def make_connection(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> MakeConnection:
    numbers = itertools.count()

    @contextlib.contextmanager
    def make(security: Security | None) -> Iterator[BadConnection]:
        line = BadConnection(splits, tmp_path / f"{next(numbers)}.db", server_loop, security)
        try:
            yield line
        finally:
            line.close()

    return make


@pytest.fixture(scope="module")
def expected(splits: Splits) -> Course:
    return undisturbed(splits)


def sweep(
    make_connection: MakeConnection,
    security: Security | None,
    way: Way,
    steps: int,
    fault: Callable[[int], At],
    expected: Course,
) -> None:
    """Makes a run for each of `steps` positions among the bytes that an undisturbed run sends in this direction."""
    with make_connection(security) as line:
        assert line.run() == expected
        # The length of a run varies slightly, because messages may share packets.
        total = line.proxy.passed[way] * 9 // 10
    struck = 0
    for byte in range(total // (2 * steps), total, total // steps):
        with make_connection(security) as line:
            line.proxy.fault = at = fault(byte)
            assert line.run() == expected
            struck += at.struck
    assert struck >= steps - 1


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("secured", [False, True])
def test_a_connection_cut_at_any_byte_changes_nothing(
    make_connection: MakeConnection, security: Security, expected: Course, way: Way, secured: bool, steps: int
) -> None:
    sweep(make_connection, security if secured else None, way, steps, lambda byte: At(way, byte, Then.CUT), expected)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
def test_a_connection_that_flips_any_byte_changes_nothing(
    make_connection: MakeConnection, security: Security, expected: Course, way: Way, steps: int
) -> None:
    """The connection has TLS, which notices every changed byte."""
    sweep(make_connection, security, way, steps, lambda byte: At(way, byte, Then.GO_ON, flipped=0x10), expected)


@each_number_of_steps
@pytest.mark.parametrize("way", Way)
def test_a_connection_that_falls_silent_at_any_byte_changes_nothing(
    make_connection: MakeConnection, expected: Course, way: Way, steps: int
) -> None:
    sweep(make_connection, None, way, steps, lambda byte: At(way, byte, Then.FREEZE), expected)


def test_a_lost_reply_is_answered_as_a_duplicate(make_connection: MakeConnection, expected: Course) -> None:
    """The update is stored but its receipt is lost: the client sends it again and gets a duplicate's receipt."""
    message = pb.SubmitUpdateResponse(receipt=pb.RECEIPT_COUNTED).SerializeToString()
    counted = b"\0" + len(message).to_bytes(4, "big") + message  # as gRPC frames it
    with make_connection(None) as line:
        clients = [line.client(index) for index in range(CLIENTS)]
        for _ in range(ROUNDS + 1):
            tasks = [client.task() for client in clients]
            line.proxy.fault = fault = CutBefore(Way.DOWN, counted)
            assert clients[0].submit(tasks[0]) is Receipt.DUPLICATE
            assert fault.struck
            for client, task in zip(clients[1:], tasks[1:], strict=True):
                assert client.submit(task) is Receipt.COUNTED
        assert line.federation.course() == expected


def test_an_update_with_corrupted_arrays_is_sent_again(make_connection: MakeConnection, expected: Course) -> None:
    with make_connection(None) as line:
        clients = [line.client(index) for index in range(CLIENTS)]
        task = clients[0].task()
        line.proxy.fault = fault = FlipInside(Way.UP, bundle(clients[0].agent.answer(task).arrays)[0].data)
        assert clients[0].submit(task) is Receipt.COUNTED
        assert fault.struck
        play(clients[1:], 1)
        play(clients, ROUNDS)
        assert line.federation.course() == expected


def test_a_task_with_corrupted_arrays_is_fetched_again(make_connection: MakeConnection, expected: Course) -> None:
    with make_connection(None) as line:
        clients = [line.client(index) for index in range(CLIENTS)]
        play(clients, 1)
        told = bundle(clients[0].task().arrays)[0].data
    with make_connection(None) as line:
        line.proxy.fault = fault = FlipInside(Way.DOWN, told)
        assert line.run() == expected
        assert fault.struck
