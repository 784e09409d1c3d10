"""Calls that need no token are few, small and short, and those who are known connect whatever they do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from fedbbpt.errors import DeadlineExceeded, InvalidRequest, MessageTooLarge, Overloaded, WrongService
from fedbbpt.limits import MAX_STRANGER_BYTES
from fedbbpt.wire.strangers import StrangerLimits, Strangers, peer_of

READ: Any = health_pb2.HealthCheckRequest.FromString
REQUEST = health_pb2.HealthCheckRequest().SerializeToString()


@dataclass
class Call:
    """A call from an address, as its servicer sees it."""

    address: str = "ipv4:192.0.2.1:4711"
    written: asyncio.Event = field(default_factory=asyncio.Event)

    def peer(self) -> str:
        return self.address

    async def write(self, response: object) -> None:
        self.written.set()


class Room:
    """The health service behind the limits of strangers."""

    def __init__(self, **limits: Any) -> None:
        servicer, strangers = aio.HealthServicer(), Strangers(StrangerLimits(**limits))
        unary: Any = grpc.unary_unary_rpc_method_handler(servicer.Check, READ)
        stream: Any = grpc.unary_stream_rpc_method_handler(servicer.Watch, READ)
        self.check_rpc = strangers.guard(unary, servicer.Check).stream_unary
        self.watch_rpc = strangers.guard(stream, servicer.Watch).stream_stream

    async def check(self, messages: Iterable[bytes] = (REQUEST,), address: str = Call.address) -> Any:
        return await self.check_rpc(sent(messages), Call(address))

    async def watch(self, address: str = Call.address) -> "asyncio.Task[None]":
        """Returns a watch that has got its first answer."""
        call = Call(address)
        watching: asyncio.Task[None] = asyncio.ensure_future(self.watch_rpc(sent([REQUEST]), call))
        answered = asyncio.ensure_future(call.written.wait())
        await asyncio.wait({watching, answered}, return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        return watching


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Returns a test that runs in an event loop of its own."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


async def sent(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@in_a_loop
async def test_health_is_answered() -> None:
    assert (await Room().check()).status == health_pb2.HealthCheckResponse.SERVING


@in_a_loop
async def test_large_message_is_refused() -> None:
    """Kills: a service name of megabytes that a watch holds as long as its caller likes."""
    name = "a" * MAX_STRANGER_BYTES
    with pytest.raises(MessageTooLarge, match="bytes without a token"):
        await Room().check([health_pb2.HealthCheckRequest(service=name).SerializeToString()])
    with pytest.raises(InvalidRequest, match="cannot be parsed"):
        await Room().check([b"\xff" * 10])
    with pytest.raises(InvalidRequest, match="no message"):
        await Room().check([])


@in_a_loop
async def test_one_address_has_few_calls() -> None:
    """Watches beyond them are told to do without, which is how a channel goes on; other addresses have room."""
    room = Room(calls_of_a_peer=2)
    watching = [await room.watch(f"ipv4:192.0.2.1:{port}") for port in (1, 2)]
    with pytest.raises(WrongService, match="2 calls without a token are open from this address"):
        await (await room.watch("ipv4:192.0.2.1:3"))
    with pytest.raises(Overloaded):
        await room.check()
    await room.check(address="ipv4:192.0.2.2:1")
    await ended(*watching)
    await room.check()


@in_a_loop
async def test_all_addresses_together_have_a_limit() -> None:
    room = Room(calls=2)
    watching = [await room.watch(f"ipv4:192.0.2.{host}:1") for host in (1, 2)]
    with pytest.raises(WrongService, match="and 2 in all"):
        await (await room.watch("ipv4:192.0.2.3:1"))
    await ended(*watching)
    await ended(await room.watch("ipv4:192.0.2.3:1"))


@in_a_loop
async def test_watch_ends_by_itself() -> None:
    await (await Room(watched_seconds=0.0).watch())


@in_a_loop
async def test_message_that_never_comes_ends_its_call_and_holds_up_no_other() -> None:
    room = Room(arriving_of_a_peer=1, seconds=0.0)
    with pytest.raises(DeadlineExceeded, match="no message within 0 seconds"):
        await room.check_rpc(never(), Call())
    room = Room(arriving_of_a_peer=1)
    stuck = asyncio.ensure_future(room.check_rpc(never(), Call()))
    await asyncio.sleep(0)
    assert (await room.check(address="ipv4:192.0.2.2:1")).status == health_pb2.HealthCheckResponse.SERVING
    await ended(stuck)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8::17%5D:4711", "2001:db8::/64"),
        ("ipv6:[2001:db8::18]:4711", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:1", "192.0.2.1"),
        ("unix:", "unix"),
    ],
)
def test_peer_is_an_address_without_its_port(address: str, peer: str) -> None:
    assert peer_of(Call(address)) == peer
