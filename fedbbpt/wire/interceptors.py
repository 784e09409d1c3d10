"""What stands before every servicer: errors become statuses in one place, and callers show their token.

Servicers raise our own errors and never abort: `context.abort` raises a bare Exception that cannot be told from a bug.
"""

import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from fedbbpt.errors import FedbbptError, Overloaded, Unauthenticated
from fedbbpt.wire.status import logged, to_status

log = logging.getLogger(__name__)

# One shape for all four kinds of rpc: what grpc's stubs say of handlers fits its synchronous servers only.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = Any
Status = Any

OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Probes carry no token."""


def behaviour_of(handler: Handler) -> Callable[[Any, Context], Any]:
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    assert found is not None, "gRPC gives each handler one behaviour"
    behaviour: Callable[[Any, Context], Any] = found
    return behaviour


def _with_behaviour(handler: Handler, behaviour: Callable[[Any, Context], Any]) -> Handler:
    """The same rpc, served by `behaviour`."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


async def answers(behaviour: Callable[[Any, Context], Any], request: Any, context: Context) -> AsyncIterator[Any]:
    """Of an rpc whose responses are a stream; none where it writes them by itself, as the health service does."""
    answer = behaviour(request, context)
    if inspect.isawaitable(answer):
        await answer
        return
    async for response in answer:
        yield response


class Errors(grpc.aio.ServerInterceptor):
    """Gives each FedbbptError its status. Anything else is a bug: its trace goes to the log, not to the caller."""

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None
        behaviour = behaviour_of(handler)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in answers(behaviour, request, context):
                    yield response
            except Exception as error:
                await _abort(context, error)

        async def unary(request: Any, context: Context) -> Any:
            try:
                return await behaviour(request, context)
            except Exception as error:
                await _abort(context, error)

        return _with_behaviour(handler, stream if handler.response_streaming else unary)


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = status_of(error)
    await context.abort(status.code, status.details, status.trailing_metadata)


def status_of(error: Exception) -> Status:
    """With code, details and trailing metadata; the log hears of the error."""
    if isinstance(error, FedbbptError):
        log.warning("%s", logged(error))
    else:
        log.error("a bug", exc_info=error)
        error = FedbbptError("a bug in the service", fix="the service's log has the trace")
    return rpc_status.to_status(to_status(error))


class Crowd(grpc.aio.ServerInterceptor):
    """Refuses calls beyond so many that are open. Stands behind `Errors`.

    gRPC has such a bound as well; its refusal does not say that the same call may come again.
    """

    def __init__(self, most: int) -> None:
        self._most, self._open = most, 0

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None
        behaviour = behaviour_of(handler)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._one_more():
                async for response in answers(behaviour, request, context):
                    yield response

        async def unary(request: Any, context: Context) -> Any:
            with self._one_more():
                return await behaviour(request, context)

        return _with_behaviour(handler, stream if handler.response_streaming else unary)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._open >= self._most:
            raise Overloaded(f"{self._open} calls are open", where="calls", fix="try again")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class BearerAuth(grpc.aio.ServerInterceptor):
    """Lets in who shows one of the tokens as `authorization: Bearer TOKEN`. Stands behind `Errors`."""

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens = [f"Bearer {token}".encode() for token in tokens]

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_SERVICES) or self._known(details):
            return handler

        async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
            raise Unauthenticated("no valid token", where="authorization", fix="--token-file with this service's token")

        # As if requests were a stream: one that nobody asks for is neither waited for nor parsed.
        return grpc.stream_unary_rpc_method_handler(refuse)

    def _known(self, details: grpc.HandlerCallDetails) -> bool:
        shown = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        if len(shown) != 1:
            return False  # one caller has one name: services tell callers apart by what they show
        given = shown[0].encode() if isinstance(shown[0], str) else shown[0]
        # All are compared, so that the time taken tells nothing about the tokens.
        return any([hmac.compare_digest(token, given) for token in self._tokens])
