"""The calls that need no token: few, small, and apart from those of callers that are known.

Health probes carry no token, and a gRPC channel to several servers watches the health of each before it sends a call.
Whatever strangers do with these calls must therefore cost little memory and take no room from anybody else.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from fedbbpt.errors import FedbbptError, MessageTooLarge, Overloaded, WrongService
from fedbbpt.limits import MAX_STRANGER_BYTES
from fedbbpt.wire.only_message import only_message
from fedbbpt.wire.request_limits import parsed

_SITE_BITS = 64
"""Bits of an IPv6 address that name a site: one machine usually has all addresses that begin with them."""


@dataclass(frozen=True, slots=True)
class StrangerLimits:
    """Limits of all calls that need no token."""

    calls: int = 1024
    """Open calls."""
    calls_of_a_peer: int = 16
    """Open calls from one address."""
    arriving: int = 8
    """Messages received at the same time. Each may take `MAX_MESSAGE_BYTES` until its length is known."""
    arriving_of_a_peer: int = 2
    """Messages received from one address at the same time."""
    seconds: float = 10.0
    """Time within which it must be a message's turn, and within which it must then arrive completely."""
    watched_seconds: float = 600.0
    """Time after which a watch ends. gRPC's channels begin another one at once."""


STRANGER_LIMITS = StrangerLimits()
"""The limits of every server, unless it is given others."""


def peer_of(context: Any) -> str:
    """Returns the address of a caller without its port; of an IPv6 address, the /64 network."""
    kind, _, rest = context.peer().partition(":")
    host = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(kind)  # a Unix domain socket
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, _SITE_BITS), strict=False))


class _Peer:
    """The open calls from one address."""

    def __init__(self, arriving: int) -> None:
        self.calls, self.arriving = 0, asyncio.Semaphore(arriving)


class Strangers:
    """The open calls of callers that nobody knows. For one event loop."""

    def __init__(self, limits: StrangerLimits) -> None:
        self._limits = limits
        self._peers: dict[str, _Peer] = {}
        self._arriving = asyncio.Semaphore(self._limits.arriving)

    def guard(self, handler: Any, behaviour: Callable[[Any, Any], Any]) -> Any:
        """Returns a handler of request streams that serves an rpc of one request within the limits.

        Args:
            handler: The rpc's handler.
            behaviour: The function of the handler.
        """
        watch = handler.response_streaming

        async def call(requests: AsyncIterator[bytes], context: Any) -> Any:
            with self._call(context, watch=watch) as peer:
                async with self._turn(peer, watch=watch):
                    data = await self._receive(requests)
                request = parsed(data, handler.request_deserializer)
                if not watch:
                    return await behaviour(request, context)
                # The health service's watch is a coroutine that writes to the context.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(behaviour(request, context), self._limits.watched_seconds)

        if watch:
            return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(call, None, handler.response_serializer)

    @contextmanager
    def _call(self, context: Any, *, watch: bool) -> Iterator[_Peer]:
        """Counts a call as open. Raises WrongService, Overloaded."""
        name = peer_of(context)
        peer = self._peers.setdefault(name, _Peer(self._limits.arriving_of_a_peer))
        every = sum(each.calls for each in self._peers.values())
        if peer.calls >= self._limits.calls_of_a_peer or every >= self._limits.calls:
            self._forget(name)
            what = f"{peer.calls} calls without a token are open from this address, and {every} in all"
            raise _no_room(what, watch=watch)
        peer.calls += 1
        try:
            yield peer
        finally:
            peer.calls -= 1
            self._forget(name)

    def _forget(self, name: str) -> None:
        if not self._peers[name].calls:
            del self._peers[name]

    @asynccontextmanager
    async def _turn(self, peer: _Peer, *, watch: bool) -> AsyncIterator[None]:
        """Waits until the message may arrive. Raises WrongService, Overloaded."""
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await held.enter_async_context(peer.arriving)
                    await held.enter_async_context(self._arriving)
            except TimeoutError:
                raise _no_room("too many messages without a token are on their way", watch=watch) from None
            yield

    async def _receive(self, requests: AsyncIterator[bytes]) -> bytes:
        """Returns the bytes of the only message. Raises DeadlineExceeded, InvalidRequest, MessageTooLarge."""
        found = await only_message(requests, self._limits.seconds)
        if len(found) > MAX_STRANGER_BYTES:
            what = f"{len(found):,} bytes without a token"
            raise MessageTooLarge(what, where="request", fix=f"at most {MAX_STRANGER_BYTES:,} bytes")
        return found


def _no_room(what: str, *, watch: bool) -> FedbbptError:
    """Returns the error of a call for which there is no room.

    A channel takes a server without Watch for healthy, so those who are known connect and call all the same.
    """
    if watch:
        return WrongService(what, where="calls", fix="Check in place of Watch")
    return Overloaded(what, where="calls", fix="wait for one of them to end")
