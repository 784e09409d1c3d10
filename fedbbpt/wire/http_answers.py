"""HTTP statuses in the place of gRPC's, from a proxy or gateway in between, or from a web server at the address."""

import re
from http import HTTPStatus

from fedbbpt.errors import FedbbptError, MessageTooLarge, Unauthenticated, Unavailable, WrongService

_STATUS = re.compile(r"Received http2 header with status: (\d{3})")
"""gRPC's text for an answer with another HTTP status than 200."""
_TUNNEL = re.compile(r"HTTP proxy returned response code (\d{3})")
"""gRPC's text for a proxy that did not open a tunnel."""
_TOO_LARGE = re.compile(r"(payload|entity|content) too large", re.IGNORECASE)
"""HTTP 413 in the text of gateways that make a gRPC status from it, as Envoy does."""
_TEMPORARY = (408, 429, 500, 502, 503, 504)


def http_problem(text: str, unavailable: type[Unavailable]) -> FedbbptError | None:
    """Returns the error of a call that got an HTTP status; None if `text`, gRPC's details of the error, has none.

    Args:
        text: The details of gRPC's error.
        unavailable: The class of errors after which trying again helps.
    """
    if found := _TUNNEL.search(text):
        return _no_tunnel(int(found[1]), unavailable)
    found = _STATUS.search(text)
    code = int(found[1]) if found else 413 if _TOO_LARGE.search(text) else 0
    if not code:
        return None
    answer = f"HTTP {_named(code)}"
    if code == 413:
        fix = "a larger limit there, such as client_max_body_size 0 in nginx; the service limits messages itself"
        return MessageTooLarge(f"a proxy in between refused the message as too large ({answer})", fix=fix)
    if code == 431:
        fix = "a larger limit there, such as large_client_header_buffers in nginx, or a shorter token"
        return MessageTooLarge(f"a proxy in between refused the headers as too large ({answer})", fix=fix)
    if code in (401, 403, 407):
        fix = "a proxy that lets gRPC calls to this service pass"
        return Unauthenticated(f"a proxy in between forbids the call ({answer})", fix=fix)
    if code in _TEMPORARY:
        return unavailable(f"a proxy in between cannot reach the service ({answer})", fix="a service that runs")
    fix = "the address of the gRPC service, or a route for gRPC in the proxy before it"
    return WrongService(f"a web server or a proxy answers instead of a gRPC service ({answer})", fix=fix)


def _no_tunnel(code: int, unavailable: type[Unavailable]) -> FedbbptError:
    what = f"the proxy that the environment names opens no tunnel (HTTP {_named(code)})"
    if code == 407:
        return Unauthenticated(what, fix="its user and password, as in http://USER:PASSWORD@HOST:PORT")
    fix = "no_proxy with the host, if this machine reaches it directly, or a proxy that lets it pass"
    if code in _TEMPORARY:
        return unavailable(what, fix=fix)
    return Unauthenticated(what, fix=fix) if code in (401, 403) else WrongService(what, fix=fix)


def _named(code: int) -> str:
    """Returns the code and its name."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
