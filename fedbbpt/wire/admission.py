"""Who calls is known before anything is read of what he sends.

gRPC hands a servicer the caller and the message together, once all of it is there: anybody could have megabytes parsed
before he is asked for a token, or take up calls for ever by never sending the message. So all requests come as streams
here, and those are not read before their caller is let in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from fedbbpt.errors import DeadlineExceeded, InvalidRequest, Overloaded
from fedbbpt.wire.interceptors import OPEN_SERVICES, Context, Continuation, Handler, answers, behaviour_of

REFLECTION = "/grpc.reflection."


@dataclass(frozen=True, slots=True)
class Room:
    """Of one caller."""

    calls: int
    """Open at a time."""
    arriving: int
    """Messages that arrive at a time, which is memory; others wait for their turn."""
    seconds: float
    """Within which a message has to arrive."""


CALLERS = Room(calls=1024, arriving=8, seconds=120.0)
STRANGERS = Room(calls=1024, arriving=64, seconds=10.0)
"""All together who need no token: probes, clients that watch a service's health, and whoever reads its API."""


class _Desk:
    """What of its room a caller has taken."""

    def __init__(self, room: Room) -> None:
        self._room, self._calls = room, 0
        self._arriving = asyncio.Semaphore(room.arriving)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Raises Overloaded."""
        if self._calls >= self._room.calls:
            raise Overloaded(f"{self._calls} calls are open", where="calls", fix="wait for one of them to end")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def message(self, requests: AsyncIterator[bytes]) -> bytes:
        """The one that there is. Raises DeadlineExceeded, InvalidRequest."""
        async with self._arriving:
            try:
                found = await asyncio.wait_for(anext(requests, None), self._room.seconds)
            except TimeoutError:
                what = f"no message within {self._room.seconds:g} seconds"
                raise DeadlineExceeded(what, where="request", fix="a faster line, or a smaller message") from None
        if found is None:
            raise InvalidRequest("no message", where="request", fix="one")
        return found


class Admission(grpc.aio.ServerInterceptor):
    """Stands behind `Errors`. For one event loop."""

    def __init__(self, identify: Callable[[Context], str], callers: Room, strangers: Room) -> None:
        """`identify` gives a caller's name, or raises Unauthenticated."""
        self._identify, self._room = identify, callers
        self._desks: dict[str, _Desk] = {}
        self._strangers = _Desk(strangers)

    def _desk(self, context: Context) -> _Desk:
        name = self._identify(context)
        if name not in self._desks:
            self._desks[name] = _Desk(self._room)
        return self._desks[name]

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None
        behaviour, for_all = behaviour_of(handler), details.method.startswith((*OPEN_SERVICES, REFLECTION))

        @asynccontextmanager
        async def admitted(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            desk = self._strangers if for_all else self._desk(context)
            async with desk.call():
                if handler.request_streaming:
                    yield requests
                    return
                try:
                    request = handler.request_deserializer(await desk.message(requests))
                except DecodeError:
                    raise InvalidRequest("no message of this rpc", where="request", fix="the proto's") from None
                yield request

        async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async with admitted(requests, context) as request:
                async for response in answers(behaviour, request, context):
                    yield response

        async def unary(requests: AsyncIterator[Any], context: Context) -> Any:
            async with admitted(requests, context) as request:
                return await behaviour(request, context)

        deserialise = handler.request_deserializer if handler.request_streaming else None
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, deserialise, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(unary, deserialise, handler.response_serializer)
