"""The interceptor of every server: it translates errors into statuses, limits open calls and checks tokens.

Servicers raise this package's errors and never call `context.abort`, because that raises a bare Exception, which cannot
be told from a bug.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from fedbbpt.errors import FedbbptError, InvalidRequest, Overloaded, Unauthenticated, WrongService
from fedbbpt.wire.checksums import METADATA, sealed, unsealed
from fedbbpt.wire.status import logged, to_status
from fedbbpt.wire.strangers import OPEN_SERVICES, STRANGER_LIMITS, StrangerLimits, Strangers
from fedbbpt.wire.tokens import shown_token, token_digest

log = logging.getLogger(__name__)

# grpc's type stubs describe the handlers of its synchronous servers only.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = Any
Status = Any


def behaviour_of(handler: Handler) -> Callable[[Any, Context], Any]:
    """Returns the function of a handler, whichever of the four kinds of rpc it serves."""
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    assert found is not None, "gRPC gives each handler one behaviour"
    behaviour: Callable[[Any, Context], Any] = found
    return behaviour


def _with_behaviour(handler: Handler, behaviour: Callable[[Any, Context], Any]) -> Handler:
    """Returns a handler of the same rpc that calls `behaviour` with the bytes of each request."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, None, handler.response_serializer)


async def responses(behaviour: Callable[[Any, Context], Any], request: Any, context: Context) -> AsyncIterator[Any]:
    """Yields the responses of a streaming rpc.

    Yields nothing if the behaviour is a coroutine that writes to the context itself, as the health service's is.
    """
    answer = behaviour(request, context)
    if inspect.isawaitable(answer):
        await answer
        return
    async for response in answer:
        yield response


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every call of a server, in one wrapper, because each wrapper costs time in every call.

    - Rejects a call that does not show one of the tokens as `authorization: Bearer TOKEN`, if there are tokens.
    - Rejects a call while `limit` others are open. gRPC has such a limit as well, but its rejection does not tell the
      client that it may retry. Calls that need no token are counted and limited apart (`wire.strangers`).
    - Ends a call that raises a FedbbptError with that error's status. Any other exception is a bug: its traceback goes
      to the log, and the caller gets INTERNAL without details.
    """

    def __init__(
        self,
        limit: int,
        tokens: Collection[str] = (),
        others: Callable[[], Collection[str]] = frozenset,
        operators: Collection[str] = (),
        strangers: StrangerLimits = STRANGER_LIMITS,
    ) -> None:
        """
        Args:
            limit: the number of open calls.
            tokens: the tokens that are accepted; none: every caller.
            others: returns the SHA-256 of further tokens. The services decide what these admit to.
            operators: the tokens of operators, which are accepted too; none: `tokens` admit operators.
            strangers: limits of the calls that need no token.
        """
        self._limit, self._open, self._others = limit, 0, others
        self._strangers = Strangers(strangers)
        self.accept(tokens, operators)
        self._guarded: dict[tuple[str, bool], Handler] = {}
        """The wrapped handlers by method, and whether its messages have checksums. A server's handlers never change."""

        async def reject(requests: AsyncIterator[bytes], context: Context) -> None:
            raise Unauthenticated("no valid token", where="authorization", fix="--token-file with this service's token")

        # A handler of request streams neither waits for the message nor parses it unless it asks for it.
        self._rejecting = self._guard(grpc.stream_unary_rpc_method_handler(reject))

    def accept(self, tokens: Collection[str], operators: Collection[str] = ()) -> None:
        """Accepts these tokens from now on, and no others; without any, every caller. Calls that are open go on."""
        self.tokens = frozenset(map(token_digest, tokens))
        self.operators = frozenset(map(token_digest, operators)) or self.tokens

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        # Only links without TLS have checksums, and few of those who care for speed do without TLS.
        is_open = details.method.startswith(OPEN_SERVICES)
        key = details.method, METADATA in (details.invocation_metadata or ())
        guarded = self._guarded.get(key)
        if guarded is None:
            handler = await continuation(details)
            if handler is None:
                return None
            handler = _with_checksums(handler) if key[1] else handler
            if is_open:
                handler = self._strangers.guard(handler, behaviour_of(handler))
            guarded = self._guarded[key] = self._guard(handler, counted=not is_open)
        if self.operators and not is_open and not self._shows_token(details):
            return self._rejecting
        return guarded

    def _guard(self, handler: Handler, *, counted: bool = True) -> Handler:
        behaviour, parse = behaviour_of(handler), handler.request_deserializer

        # gRPC would answer a message that cannot be parsed with UNKNOWN, before any of this is called.
        def read(request: Any) -> Any:
            if parse is None:
                return request
            return _read_all(request, parse) if handler.request_streaming else _read(request, parse)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._begin_call(counted)
                try:
                    async for response in behaviour(read(request), context):
                        yield response
                finally:
                    self._open -= counted
            except Exception as error:
                await _abort(context, error)

        async def call(request: Any, context: Context) -> Any:
            try:
                self._begin_call(counted)
                try:
                    return await behaviour(read(request), context)
                finally:
                    self._open -= counted
            except Exception as error:
                await _abort(context, error)

        return _with_behaviour(handler, stream if inspect.isasyncgenfunction(behaviour) else call)

    def _begin_call(self, counted: bool) -> None:
        if counted and self._open >= self._limit:
            raise Overloaded(f"{self._open} calls are open", where="calls", fix="try again")
        self._open += counted

    def _shows_token(self, details: grpc.HandlerCallDetails) -> bool:
        shown = shown_token(details.invocation_metadata)
        return shown in self.operators or shown in self.tokens or shown in self._others()


def _with_checksums(handler: Handler) -> Handler:
    """Returns a handler whose requests and responses end with their checksums."""
    parse, serialise = handler.request_deserializer, handler.response_serializer

    def read(data: bytes) -> Any:
        return parse(unsealed(data)) if parse else unsealed(data)

    def write(response: Any) -> bytes:
        return sealed(serialise(response) if serialise else response)

    return handler._replace(request_deserializer=read, response_serializer=write)


def _read(data: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(data)
    except DecodeError:
        what = "the message cannot be parsed"
        raise InvalidRequest(what, where="request", fix="this rpc's request message") from None


async def _read_all(requests: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for data in requests:
        yield _read(data, parse)


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = status_of(error)
    await context.abort(status.code, status.details, status.trailing_metadata)


def status_of(error: Exception) -> Status:
    """Logs the error and returns its status: code, details and trailing metadata."""
    if isinstance(error, NotImplementedError):  # raised by what protoc generates for rpcs that a service leaves out
        error = WrongService("this service does not have this call", fix="one of the calls that reflection lists")
    if isinstance(error, FedbbptError):
        log.warning("%s", logged(error))
    else:
        log.error("a bug", exc_info=error)
        error = FedbbptError("a bug in the service", fix="the service's log has the trace")
    return rpc_status.to_status(to_status(error))
