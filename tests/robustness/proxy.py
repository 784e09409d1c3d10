"""A proxy between a caller and a service, with every fault that a connection can have."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias


class Way(Enum):
    UP = auto()
    DOWN = auto()


class Then(Enum):
    """The fate of a connection after a piece of its bytes was handled."""

    GO_ON = auto()
    CUT = auto()
    FREEZE = auto()
    """The connection stays open, and no more bytes pass."""
    HALF_OPEN = auto()
    """The service's end is closed, and the caller is not told."""


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
    """A fault that cuts the connection at the first piece with one of the patterns, which is lost."""

    way: Way
    patterns: tuple[bytes, ...]
    struck: bool = False

    def __call__(self, way: Way, position: int, data: bytes) -> tuple[bytes, Then]:
        if self.struck or way is not self.way or not any(pattern in data for pattern in self.patterns):
            return data, Then.GO_ON
        self.struck = True
        return b"", Then.CUT


@dataclass
class Proxy:
    """Forwards connections to a port of this machine, with a fault."""

    target: int
    fault: Fault = no_fault
    delay_seconds: float = 0.0
    """The time that each piece takes on its way."""
    piece_bytes: int = 65536
    """The most bytes that arrive together."""
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
                for offset in range(0, len(forwarded), self.piece_bytes):
                    await asyncio.sleep(self.delay_seconds)
                    writer.write(forwarded[offset : offset + self.piece_bytes])
                    await writer.drain()
                if then is Then.CUT:
                    break
                if then in (Then.FREEZE, Then.HALF_OPEN):
                    self._frozen.add(pair)
                if then is Then.HALF_OPEN:
                    pair[1].transport.abort()
        if pair not in self._frozen:
            _abort(pair)


def _abort(pair: Pair) -> None:
    for writer in pair:
        writer.transport.abort()
