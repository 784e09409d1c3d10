"""Translates errors to gRPC statuses and back, with one table that covers every error.

A status has a code and google.rpc details: ErrorInfo (its reason is the error's class, its metadata are `where` and
`fix`), BadRequest for invalid input, RetryInfo if a retry may help, QuotaFailure if a budget is spent.
"""

import re
from collections.abc import Mapping
from math import ceil

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fedbbpt import errors
from fedbbpt.errors import FedbbptError, Unavailable
from fedbbpt.host.printable import printable
from fedbbpt.limits import MAX_STATUS_CHARACTERS
from fedbbpt.wire.checksums import UNREADABLE
from fedbbpt.wire.http_answers import http_problem
from fedbbpt.wire.messages.durations import seconds_of

DOMAIN = "fedbbpt"
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 1e9
"""Default delay in RetryInfo, and the largest one, as google.protobuf.Duration holds no more than about 1e11 s."""

Code = grpc.StatusCode
CODES: Mapping[type[FedbbptError], grpc.StatusCode] = {
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.ChecksumMismatch: Code.DATA_LOSS,
    errors.NotFound: Code.NOT_FOUND,
    errors.ClientIdTaken: Code.ALREADY_EXISTS,
    errors.RunNameTaken: Code.ALREADY_EXISTS,
    errors.WrongService: Code.UNIMPLEMENTED,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.SessionEvicted: Code.ABORTED,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PolicyForbids: Code.PERMISSION_DENIED,
    errors.NotPermitted: Code.PERMISSION_DENIED,
    errors.Exhausted: Code.RESOURCE_EXHAUSTED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.StoreFull: Code.RESOURCE_EXHAUSTED,
    errors.StoreError: Code.UNAVAILABLE,
    errors.AuditBroken: Code.DATA_LOSS,
    errors.PortTaken: Code.UNAVAILABLE,
    errors.InsecureAddress: Code.FAILED_PRECONDITION,
    errors.FedbbptError: Code.INTERNAL,
}
"""The code of each error; classes that are not listed have the code of their nearest listed ancestor."""

_NO_CONNECTION = (
    "failed to connect",
    "connections to all backends failing",
    "errors resolving",
    "DNS resolution failed",
)
"""Parts of gRPC's texts about channels without a connection."""

RETRYABLE = (errors.Overloaded, errors.RateLimited, errors.StoreError, errors.Unavailable)
"""Errors after which the same call may succeed later."""

_CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if isinstance(member, type) and issubclass(member, FedbbptError)
}


def code_of(error: FedbbptError) -> grpc.StatusCode:
    """Returns the gRPC status code of an error."""
    return next(CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in CODES)


def to_status(error: FedbbptError) -> status_pb2.Status:
    """Returns the status of an error, with the details from which `from_rpc_error` restores it."""
    # The path of a store must not leave the machine.
    where = "" if isinstance(error, errors.StoreError) else _shorten(error.where)
    seconds = error.seconds if isinstance(error, errors.RateLimited) else RETRY_SECONDS
    error = type(error)(_shorten(error.what), where=where, fix=_shorten(error.fix))
    metadata = {"where": error.where, "fix": error.fix}
    details = [_pack(error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=metadata))]
    if isinstance(error, errors.InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.where, description=str(error))
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, RETRYABLE):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(ceil(1000 * min(seconds, MAX_RETRY_SECONDS)))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, errors.BudgetSpent):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.where, description=str(error))
        details.append(_pack(error_details_pb2.QuotaFailure(violations=[quota])))
    return status_pb2.Status(code=code_of(error).value[0], message=error.what, details=details)


def logged(error: FedbbptError) -> str:
    """Returns one log line of bounded length; it escapes control characters, as errors may quote the caller."""
    short = type(error)(_shorten(error.what), where=_shorten(error.where), fix=_shorten(error.fix))
    text = f"{type(error).__name__}: {short}"
    return printable(text)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_STATUS_CHARACTERS else text[: MAX_STATUS_CHARACTERS - 3] + "..."


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def from_rpc_error(error: grpc.RpcError, unavailable: type[Unavailable]) -> FedbbptError:
    """Returns the error that the service raised.

    For a status that no fedbbpt service sent, returns the closest error, or else one of class `unavailable`.
    """
    assert isinstance(error, grpc.Call), "grpc raises the call itself as its error"
    status = _status(error)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _CLASSES:
            what, where, fix = map(printable, (status.message, info.metadata["where"], info.metadata["fix"]))
            return _CLASSES[info.reason](what, where=where, fix=fix)
    code, text = error.code(), printable(error.details() or "")
    if text == UNREADABLE:
        fix = "the same call again; with TLS no bit can change on the way"
        return errors.ChecksumMismatch("an answer was corrupted in transit", fix=fix)
    if problem := http_problem(text, unavailable):
        return problem
    if code is Code.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("no answer in time" if text == "Deadline Exceeded" else text)
    if code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
        return errors.Unauthenticated(text)
    if code is Code.UNIMPLEMENTED:
        what = f"the service that answers does not have this call ({text or code.name})"
        fix = "the right one of the addresses of coordinator and PTM service, or the same version on both sides"
        return errors.WrongService(what, fix=fix)
    if code is Code.RESOURCE_EXHAUSTED:
        # gRPC itself uses this code for large messages and for too many calls; only the text differs.
        return _too_large(text) if "larger than max" in text else errors.Overloaded(text)
    return unavailable(f"{code.name}: {text}")


def _too_large(text: str) -> errors.MessageTooLarge:
    """Returns the error of a message that gRPC itself refused on one of both sides."""
    if sizes := re.search(r"\((\d+) vs\.? (\d+)\)", text):
        text = f"a message has {int(sizes[1]):,} bytes, and the limit is {int(sizes[2]):,}"
    return errors.MessageTooLarge(text, fix="fewer or shorter examples, or fewer prompts, in one call")


def connection_failed(error: grpc.RpcError) -> bool:
    """Returns whether a call failed because there was no connection to a service."""
    assert isinstance(error, grpc.Call), "grpc raises the call itself as its error"
    text = error.details() or ""
    return error.code() is Code.UNAVAILABLE and any(part in text for part in _NO_CONNECTION)


def _status(call: grpc.Call) -> status_pb2.Status:
    """Returns the google.rpc status of an ended call; an empty one if the server sent none that can be read."""
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except (DecodeError, ValueError):  # damaged on the way, or of something in between
        return status_pb2.Status()


def retry_seconds(error: grpc.RpcError) -> float:
    """Returns how many seconds the service asks to wait before a retry; 0 without RetryInfo."""
    assert isinstance(error, grpc.Call), "grpc raises the call itself as its error"
    for detail in _status(error).details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return max(0.0, seconds_of(info.retry_delay))
    return 0.0
