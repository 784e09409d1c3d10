"""HTTP statuses of proxies and web servers in the place of gRPC's: final, or a reason to try again, and in words."""

import grpc
import pytest

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.wire.status import from_rpc_error
from tests.rpc_errors import FailedCall

Code = grpc.StatusCode


def problem(code: grpc.StatusCode, text: str) -> FedbbptError:
    return from_rpc_error(FailedCall(None, code, text), errors.PtmUnavailable)


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (302, Code.UNKNOWN, errors.WrongService, "instead of a gRPC service (HTTP 302 Found)"),
        (400, Code.INTERNAL, errors.WrongService, "instead of a gRPC service (HTTP 400 Bad Request)"),
        (401, Code.UNAUTHENTICATED, errors.Unauthenticated, "a proxy in between forbids the call (HTTP 401"),
        (403, Code.PERMISSION_DENIED, errors.Unauthenticated, "a proxy in between forbids the call (HTTP 403"),
        (404, Code.UNIMPLEMENTED, errors.WrongService, "instead of a gRPC service (HTTP 404 Not Found)"),
        (413, Code.UNKNOWN, errors.MessageTooLarge, "a proxy in between refused the message as too large (HTTP 413"),
        (431, Code.UNKNOWN, errors.MessageTooLarge, "refused the headers as too large (HTTP 431"),
        (502, Code.UNAVAILABLE, errors.PtmUnavailable, "cannot reach the service (HTTP 502 Bad Gateway)"),
        (503, Code.UNAVAILABLE, errors.PtmUnavailable, "cannot reach the service (HTTP 503"),
        (504, Code.UNAVAILABLE, errors.PtmUnavailable, "cannot reach the service (HTTP 504"),
        (429, Code.UNAVAILABLE, errors.PtmUnavailable, "cannot reach the service (HTTP 429"),
        (599, Code.UNKNOWN, errors.WrongService, "instead of a gRPC service (HTTP 599)"),
    ],
)
def test_an_http_status_is_told_as_what_it_is(
    status: int, code: grpc.StatusCode, error: type[FedbbptError], message: str
) -> None:
    found = problem(code, f"Received http2 header with status: {status}")
    assert type(found) is error and message in found.what and found.fix


@pytest.mark.parametrize("text", ["Payload Too Large", "upstream said: Request Entity Too Large", "content too large"])
def test_a_gateway_may_put_413_into_words(text: str) -> None:
    assert isinstance(problem(Code.UNKNOWN, text), errors.MessageTooLarge)


@pytest.mark.parametrize(
    ("status", "error", "fix"),
    [
        (403, errors.Unauthenticated, "no_proxy"),
        (405, errors.WrongService, "no_proxy"),
        (407, errors.Unauthenticated, "USER:PASSWORD"),
        (502, errors.PtmUnavailable, "no_proxy"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(status: int, error: type[FedbbptError], fix: str) -> None:
    text = f"failed to connect to all addresses; last error: UNKNOWN: HTTP proxy returned response code {status}"
    found = problem(Code.UNAVAILABLE, text)
    assert type(found) is error and f"opens no tunnel (HTTP {status}" in found.what and fix in found.fix


def test_a_message_beyond_the_limit_of_grpc_is_told_with_both_sizes() -> None:
    found = problem(Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (40000000 vs. 33554432)")
    assert isinstance(found, errors.MessageTooLarge)
    assert found.what == "a message has 40,000,000 bytes, and the limit is 33,554,432" and found.fix


def test_a_call_that_the_service_does_not_have_is_told_with_what_may_be_wrong() -> None:
    found = problem(Code.UNIMPLEMENTED, "Method not found!")
    assert isinstance(found, errors.WrongService)
    assert found.what == "the service that answers does not have this call (Method not found!)"
    assert "coordinator" in found.fix and "PTM service" in found.fix
