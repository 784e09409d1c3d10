"""The interceptor of every server: it translates errors into statuses, limits open calls, and checks who may call.

Servicers raise this package's errors and never call `context.abort`, because that raises a bare Exception, which cannot
be told from a bug.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import grpc
from grpc_status import rpc_status

from fedbbpt.errors import FedbbptError, NotPermitted, Overloaded, Unauthenticated, WrongService
from fedbbpt.identity.callers import EVERYBODY, Caller
from fedbbpt.identity.certificates import identity_of
from fedbbpt.identity.roles import is_open
from fedbbpt.identity.tokens_file import Token
from fedbbpt.wire.checksums import METADATA, sealed, unsealed
from fedbbpt.wire.request_limits import parsed
from fedbbpt.wire.status import logged, to_status
from fedbbpt.wire.strangers import STRANGER_LIMITS, StrangerLimits, Strangers
from fedbbpt.wire.tokens import shown_token
from fedbbpt.wire.tracing import received, recording, span

log = logging.getLogger(__name__)

# grpc's type stubs describe the handlers of its synchronous servers only.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = Any
Status = Any

SERIAL = "certificate "
"""What the proof of a caller that is known by its certificate begins with."""

_CALLER: ContextVar[Caller] = ContextVar("coordinator's caller", default=EVERYBODY)
"""The caller of the rpc that the current asyncio task serves; gRPC serves each rpc in a task of its own."""


def current_caller() -> Caller:
    """Returns the caller of the rpc that the current task serves."""
    return _CALLER.get()


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

    - Identifies the caller by its token, or else by its certificate, and rejects a call that its role may not make.
      Without tokens and certificates every caller may call everything.
    - Rejects a call while `limit` others are open. gRPC has such a limit as well, but its rejection does not tell the
      client that it may retry. Calls that need no token are counted and limited apart (`wire.strangers`).
    - Ends a call that raises a FedbbptError with that error's status. Any other exception is a bug: its traceback goes
      to the log, and the caller gets INTERNAL without details.
    """

    def __init__(
        self,
        limit: int,
        tokens: Sequence[Token] | None = None,
        others: Callable[[str], Caller | None] = lambda digest: None,
        *,
        certificates: bool = False,
        strangers: StrangerLimits = STRANGER_LIMITS,
    ) -> None:
        """
        Args:
            limit: the number of open calls.
            tokens: the tokens that are accepted; None: those of `others` only, and callers without a token.
            others: returns the caller that shows a token with this SHA-256, if it is one of a run's own.
            certificates: whether callers have certificates, which TLS has verified.
            strangers: limits of the calls that anybody may make.
        """
        self._limit, self._open, self._others, self._certificates = limit, 0, others, certificates
        self._strangers = Strangers(strangers)
        self._change = 0
        """How often the accepted credentials have changed."""
        self._revoked: frozenset[str] = frozenset()
        self._tokens: dict[str, Caller] | None
        self.accept(tokens)
        self._guarded: dict[tuple[str, bool], Handler] = {}
        """The wrapped handlers by method, and whether its messages have checksums. A server's handlers never change."""

    def accept(self, tokens: Sequence[Token] | None, revoked: Collection[str] = ()) -> None:
        """Accepts these tokens from now on, and no others, and no certificates of these serial numbers."""
        self._revoked = frozenset(revoked)
        self._tokens = (
            None
            if tokens is None
            else {token.sha256: Caller(token.name, frozenset({token.role}), proof=token.sha256) for token in tokens}
        )
        self._change += 1

    def admits(self, caller: Caller) -> bool:
        """Returns whether the credentials of an earlier call are accepted still."""
        if caller.runs is not None:
            return self._others(caller.proof) is not None
        return caller is EVERYBODY or caller.proof in (self._tokens or ()) or self._by_certificate(caller)

    def _by_certificate(self, caller: Caller) -> bool:
        return caller.proof.startswith(SERIAL) and caller.proof.removeprefix(SERIAL) not in self._revoked

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        # Only links without TLS have checksums, and few of those who care for speed do without TLS.
        anybody = is_open(details.method)
        key = details.method, METADATA in (details.invocation_metadata or ())
        guarded = self._guarded.get(key)
        if guarded is None:
            handler = await continuation(details)
            if handler is None:
                return None
            handler = _with_checksums(handler) if key[1] else handler
            if anybody:
                handler = self._strangers.guard(handler, behaviour_of(handler))
            guarded = self._guarded[key] = self._guard(handler, details.method)
        if anybody:
            return guarded
        try:
            caller = self._identified(details.invocation_metadata)
            if caller is not None:
                caller.check_may_call(details.method)
                _CALLER.set(caller)
        except FedbbptError as error:
            return self._rejecting(error)
        return guarded

    def _identified(self, metadata: Any) -> Caller | None:
        """Returns the caller, or None if its certificate has to tell, which gRPC shows to handlers only."""
        if self._tokens is None and not self._certificates and not any(key == "authorization" for key, _ in metadata):
            return EVERYBODY
        shown = shown_token(metadata)
        if shown is not None and (found := (self._tokens or {}).get(shown) or self._others(shown)) is not None:
            return found
        if self._tokens is None and not self._certificates:
            return EVERYBODY
        if self._certificates and shown is None:
            return None
        raise Unauthenticated("no valid token", where="authorization", fix="--token-file with this service's token")

    def _check_certificate(self, context: Context, method: str) -> None:
        """Identifies the caller by its certificate, whose name must be that of its token if it shows one."""
        (pem,) = context.auth_context()["x509_pem_cert"]
        holder = identity_of(pem)
        if holder.serial in self._revoked:
            what, fix = f"the certificate of {holder.name} was revoked", "a new invitation from the operator"
            raise Unauthenticated(what, where="certificate", fix=fix)
        if not holder.name:
            what, fix = "the certificate has no common name, which would be its member's", "one with a CN"
            raise Unauthenticated(what, where="certificate", fix=fix)
        caller = Caller(holder.name, frozenset({holder.role}), proof=f"{SERIAL}{holder.serial}")
        if self._identified(context.invocation_metadata()) is None:
            caller.check_may_call(method)
            _CALLER.set(caller)
        elif holder.name != current_caller().name:
            what = f"the token belongs to {current_caller().name}, and the certificate to {holder.name}"
            raise NotPermitted(what, where="authorization", fix="a token of the same name, or none")

    def _rejecting(self, error: FedbbptError) -> Handler:
        """Returns a handler that ends the call with the error."""

        async def reject(requests: AsyncIterator[bytes], context: Context) -> None:
            await _abort(context, error)

        # A handler of request streams neither waits for the message nor parses it unless it asks for it.
        return grpc.stream_unary_rpc_method_handler(reject)

    def _guard(self, handler: Handler, method: str) -> Handler:
        behaviour, parse = behaviour_of(handler), handler.request_deserializer
        counted = not is_open(method)

        # gRPC would answer a message that cannot be parsed with UNKNOWN, before any of this is called.
        def read(request: Any) -> Any:
            if parse is None:
                return request
            return _read_all(request, parse) if handler.request_streaming else parsed(request, parse)

        certified = self._certificates and counted

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._begin_call(counted)
                try:
                    if certified:
                        self._check_certificate(context, method)
                    change = self._change
                    async for response in behaviour(read(request), context):
                        if change != self._change and not self.admits(current_caller()):
                            raise Unauthenticated("the credentials are no longer valid", where="authorization")
                        yield response
                finally:
                    self._open -= counted
            except Exception as error:
                await _abort(context, error)

        async def call(request: Any, context: Context) -> Any:
            try:
                self._begin_call(counted)
                try:
                    if certified:
                        self._check_certificate(context, method)
                    return await behaviour(read(request), context)
                finally:
                    self._open -= counted
            except Exception as error:
                await _abort(context, error)

        async def traced(request: Any, context: Context) -> Any:
            # A call without a trace around it would only be noise.
            parent = received(context.invocation_metadata())
            with span(method.rpartition("/")[2], parent) if parent else nullcontext():
                return await call(request, context)

        if inspect.isasyncgenfunction(behaviour):
            return _with_behaviour(handler, stream)
        return _with_behaviour(handler, traced if recording() else call)

    def _begin_call(self, counted: bool) -> None:
        if counted and self._open >= self._limit:
            raise Overloaded(f"{self._open} calls are open", where="calls", fix="try again")
        self._open += counted


def _with_checksums(handler: Handler) -> Handler:
    """Returns a handler whose requests and responses end with their checksums."""
    parse, serialise = handler.request_deserializer, handler.response_serializer

    def read(data: bytes) -> Any:
        return parse(unsealed(data)) if parse else unsealed(data)

    def write(response: Any) -> bytes:
        return sealed(serialise(response) if serialise else response)

    return handler._replace(request_deserializer=read, response_serializer=write)


async def _read_all(requests: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for data in requests:
        yield parsed(data, parse)


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
