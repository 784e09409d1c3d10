"""Identifies the caller and applies its limits before reading any of its request.

gRPC calls a servicer only once the whole message has arrived and is parsed. Without a token, a caller could have
megabytes parsed, or hold calls open for ever by never sending the message. `AdmissionInterceptor` therefore serves
every rpc as if its request were a stream, and reads that stream only after it has admitted the caller.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from fedbbpt.errors import Overloaded
from fedbbpt.identity.callers import check_role
from fedbbpt.identity.roles import Role, is_open
from fedbbpt.wire.interceptors import Context, Continuation, Handler, behaviour_of, responses
from fedbbpt.wire.only_message import only_message
from fedbbpt.wire.request_limits import parsed


class Caller(Protocol):
    """An identified caller. Calls with the same name share one set of limits."""

    @property
    def name(self) -> str:
        """The caller's unique name."""
        ...

    @property
    def role(self) -> Role:
        """What the caller may do."""
        ...


C = TypeVar("C", bound=Caller)

_CALLER: ContextVar[Any] = ContextVar("caller")
"""The caller of the rpc that the current asyncio task serves; gRPC serves each rpc in a task of its own."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Limits of one caller."""

    calls: int
    """Open calls."""
    arriving: int
    """Messages received at the same time, which bounds memory; further messages wait."""
    seconds: float
    """Time within which a message must arrive completely."""


IDENTIFIED_LIMITS = CallerLimits(calls=1024, arriving=8, seconds=120.0)
"""Default limits of each identified caller."""


class _CallerLoad:
    """A caller's open calls and arriving messages, within its limits."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits, self._calls = limits, 0
        self._arriving = asyncio.Semaphore(limits.arriving)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Counts a call as open. Raises Overloaded."""
        if self._calls >= self._limits.calls:
            raise Overloaded(f"{self._calls} calls are open", where="calls", fix="wait for one of them to end")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def receive(self, requests: AsyncIterator[bytes]) -> bytes:
        """Returns the request's only message. Raises DeadlineExceeded, InvalidRequest."""
        async with self._arriving:
            return await only_message(requests, self._limits.seconds)


class AdmissionInterceptor(grpc.aio.ServerInterceptor, Generic[C]):
    """Reads a request only after its caller is identified and within its limits.

    Comes after `CallInterceptor`. For one event loop.
    """

    def __init__(self, identify: Callable[[Context], C], limits: CallerLimits) -> None:
        """Creates the interceptor of one server.

        Args:
            identify: Returns the caller, or raises Unauthenticated; called once for each call. Its role decides
                which rpcs it may call.
            limits: Limits of each identified caller.
        """
        self._identify, self._limits = identify, limits
        self._loads: dict[str, _CallerLoad] = {}

    def caller(self) -> C:
        """Returns the caller of the rpc that the current task serves. Not for health."""
        caller: C = _CALLER.get()
        return caller

    def _identified(self, context: Context, method: str) -> _CallerLoad:
        caller = self._identify(context)
        check_role(caller.name, frozenset({caller.role}), method)
        _CALLER.set(caller)
        if caller.name not in self._loads:
            self._loads[caller.name] = _CallerLoad(self._limits)
        return self._loads[caller.name]

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        handler = await continuation(details)
        if handler is None or is_open(details.method):
            return handler
        behaviour = behaviour_of(handler)

        @asynccontextmanager
        async def admitted(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            load = self._identified(context, details.method)
            async with load.call():
                if handler.request_streaming:
                    yield requests
                    return
                request = parsed(await load.receive(requests), handler.request_deserializer)
                yield request

        async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            async with admitted(requests, context) as request:
                async for response in responses(behaviour, request, context):
                    yield response

        async def unary(requests: AsyncIterator[Any], context: Context) -> Any:
            async with admitted(requests, context) as request:
                return await behaviour(request, context)

        deserialise = handler.request_deserializer if handler.request_streaming else None
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, deserialise, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(unary, deserialise, handler.response_serializer)
