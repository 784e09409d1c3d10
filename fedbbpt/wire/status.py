"""Errors <-> gRPC status, by one total table.

An error travels as a code and google.rpc details: ErrorInfo (its reason names our class, its metadata hold where and
fix), BadRequest for input, RetryInfo where trying again may help, QuotaFailure where a budget is spent.
"""

from collections.abc import Mapping
from math import ceil

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fedbbpt import errors
from fedbbpt.errors import FedbbptError, Unavailable

DOMAIN = "fedbbpt"
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 1e9
"""What callers are asked to wait where nobody knows better; more than the most, no message holds."""
MAX_TEXT = 300
"""Characters of a text. HTTP/2 takes 8 KiB of metadata, and a caller may be quoted."""

Code = grpc.StatusCode
CODES: Mapping[type[FedbbptError], grpc.StatusCode] = {
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.ChecksumMismatch: Code.DATA_LOSS,
    errors.NotFound: Code.NOT_FOUND,
    errors.ClientIdTaken: Code.ALREADY_EXISTS,
    errors.WrongService: Code.UNIMPLEMENTED,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.SessionEvicted: Code.ABORTED,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PolicyForbids: Code.PERMISSION_DENIED,
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
"""The nearest ancestor in the tree decides."""

RETRYABLE = (errors.Overloaded, errors.RateLimited, errors.StoreError, errors.Unavailable)
"""Trying the same call again may help."""

_CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if isinstance(member, type) and issubclass(member, FedbbptError)
}


def code_of(error: FedbbptError) -> grpc.StatusCode:
    return next(CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in CODES)


def to_status(error: FedbbptError) -> status_pb2.Status:
    """The status whose details let `from_rpc_error` build the same error again."""
    # Where the other side keeps its files is nobody's business.
    where = "" if isinstance(error, errors.StoreError) else _cut(error.where)
    seconds = error.seconds if isinstance(error, errors.RateLimited) else RETRY_SECONDS
    error = type(error)(_cut(error.what), where=where, fix=_cut(error.fix))
    place = {"where": error.where, "fix": error.fix}
    packed = [_pack(error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=place))]
    if isinstance(error, errors.InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.where, description=str(error))
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, RETRYABLE):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(ceil(1000 * min(seconds, MAX_RETRY_SECONDS)))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, errors.BudgetSpent):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.where, description=str(error))
        packed.append(_pack(error_details_pb2.QuotaFailure(violations=[quota])))
    return status_pb2.Status(code=code_of(error).value[0], message=error.what, details=packed)


def logged(error: FedbbptError) -> str:
    """On one line and of bounded length, whatever a caller wrote that is quoted in it."""
    text = f"{type(error).__name__}: {type(error)(_cut(error.what), where=_cut(error.where), fix=_cut(error.fix))}"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def from_rpc_error(error: grpc.RpcError, unavailable: type[Unavailable]) -> FedbbptError:
    """The error that the other side raised; where no fedbbpt service did, `unavailable` or the nearest we have."""
    assert isinstance(error, grpc.Call), "every error of a call that was made is its call"
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _CLASSES:
            return _CLASSES[info.reason](status.message, where=info.metadata["where"], fix=info.metadata["fix"])
    code, text = error.code(), error.details() or ""
    if code is Code.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(text)
    if code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED):
        return errors.Unauthenticated(text)
    if code is Code.UNIMPLEMENTED:
        return errors.WrongService(text, fix="the address of the other service, or the same version on both sides")
    if code is Code.RESOURCE_EXHAUSTED:
        # gRPC itself refuses two things, and only its words tell them apart.
        return errors.MessageTooLarge(text) if "larger than max" in text else errors.Overloaded(text)
    return unavailable(f"{code.name}: {text}")


def retry_seconds(error: grpc.RpcError) -> float:
    """How long the other side asks its caller to wait before the same call; 0 where it does not say."""
    assert isinstance(error, grpc.Call), "every error of a call that was made is its call"
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return max(0.0, info.retry_delay.ToTimedelta().total_seconds())
    return 0.0
