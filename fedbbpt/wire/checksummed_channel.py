"""A channel without TLS that notices changed bits."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from fedbbpt.errors import ChecksumMismatch
from fedbbpt.wire.checksums import METADATA, is_sealed, looks_sealed, sealed, unsealed
from fedbbpt.wire.renewed_channel import RenewedChannel

_DETAILS = "grpc-status-details-bin"
_CODES_OF_GRPC = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)
_UNREADABLE_LOGGED = "Exception deserializing message!"
"""What grpc logs about an answer that cannot be read, with a traceback."""


class ChecksummedChannel(RenewedChannel):
    """Sends a checksum with each message, and checks those of the answers if the service sends any.

    Headers have no checksums, and both ends remember them for a whole connection. So a call that gRPC refuses, and not
    the service, is made once more on a new connection.
    """

    def __init__(self, open_channel: Callable[[], grpc.Channel]) -> None:
        self._answers_sealed: bool | None = None
        """Whether the service sends checksums, since one in another language need not; None before its first answer."""
        logging.getLogger("grpc._common").addFilter(_is_worth_a_traceback)
        super().__init__(open_channel)

    def renew(self) -> None:
        """Opens the channel anew. What is known about the other end stays known, since it is the same one."""
        self._channel = self._open_channel()

    def _unseal(self, data: bytes) -> bytes:
        if is_sealed(data):
            self._answers_sealed = True
        elif self._answers_sealed is None and looks_sealed(data):
            unsealed(data)  # the first answer of all is damaged
        self._answers_sealed = bool(self._answers_sealed)
        return unsealed(data) if self._answers_sealed else data

    def _multicallable(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return self._checked(kind, *arguments, **options)

    def _checked(
        self,
        kind: str,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        make, write, read = super()._multicallable, request_serializer, response_deserializer
        if write is None or read is None:  # the caller sends bytes as they are
            return make(kind, (method, write, read, *rest), options)
        seal, unseal = lambda sent: sealed(write(sent)), lambda data: read(self._unseal(data))
        return _Announcing(make(kind, (method, seal, unseal, *rest), options), self.renew)


class _Announcing:
    """An rpc's function, as the generated stubs call it, which tells the service that messages have checksums."""

    def __init__(self, function: Any, renew: Callable[[], None]) -> None:
        self._function, self._renew = function, renew

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self._twice(self._function, request, timeout, metadata, options)

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self._twice(self._function.with_call, request, timeout, metadata, options)

    def _twice(self, function: Any, request: Any, timeout: Any, metadata: Any, options: dict[str, Any]) -> Any:
        call = partial(function, request, timeout=timeout, metadata=(*(metadata or ()), METADATA), **options)
        try:
            if _has_answer(found := call()):
                return _Answers(found, self._renew) if isinstance(found, grpc.Call) else found
            self._renew()
        except grpc.RpcError as raised:
            error: Any = raised  # grpc raises the call itself as its error
            if not _is_of_grpc(error):
                raise
            self._renew()
            if isinstance(request, Iterator):
                raise  # it has been read
        if _has_answer(found := call()):
            return found
        raise ChecksumMismatch("the answer was lost in transit", where="message", fix="the same call again, or TLS")

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self._function.future(request, timeout=timeout, metadata=(*(metadata or ()), METADATA), **options)


class _Answers:
    """The answers of a call that streams them."""

    def __init__(self, call: Any, renew: Callable[[], None]) -> None:
        self._call, self._renew = call, renew

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            if _is_of_grpc(error):
                self._renew()
            raise

    def cancel(self) -> None:
        """Ends the call."""
        self._call.cancel()


def _has_answer(found: Any) -> bool:
    """Returns false if a call ended well, but without its message: a changed bit may hide it."""
    return (found[0] if isinstance(found, tuple) else found) is not None


def _is_of_grpc(error: Any) -> bool:
    """Returns whether gRPC refused a call, on either side. The services add details to their errors."""
    sent_by_service = any(key == _DETAILS for key, _ in error.trailing_metadata() or ())
    return error.code() in _CODES_OF_GRPC and not sent_by_service


def _is_worth_a_traceback(record: logging.LogRecord) -> bool:
    """Returns false for a damaged answer, which the call reports as an error of its own."""
    return record.msg != _UNREADABLE_LOGGED
