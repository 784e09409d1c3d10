"""Channels and servers: TLS, tokens, keepalive, sizes.

Servers bind loopback only, unless TLS is on or insecurity was asked for, loudly.
"""

import ipaddress
import logging
import socket
import ssl
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from fedbbpt.errors import InsecureAddress, InvalidInput, PortTaken
from fedbbpt.wire.balancing import target
from fedbbpt.wire.interceptors import BearerAuth, Crowd, Errors

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
KEEPALIVE_SECONDS = 30
PTM_KEEPALIVE_SECONDS = 360
"""A PTM service may be anybody's, and a gRPC server that is not told otherwise breaks off the calls of a client that
pings it more often than every 300 s."""
MAX_CONCURRENT_CALLS = 4096
"""Of all callers; each client of a run holds one stream open. gRPC itself ends twice as many."""

# Both ends must agree, or the server takes the client's pings for an attack.
_KEEPALIVE = [
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
# What one connection may take. gRPC itself refuses more than 16 KiB of metadata, and cuts off who pings too often. How
# long a connection may live is not bounded: a client's stream of tasks is one call, as long as its run.
_CONNECTIONS = [
    ("grpc.max_concurrent_streams", 1024),
    # One on which nothing is asked, and one that never ends its TLS handshake, are closed.
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
]
# A service that restarts is back within seconds; gRPC's own patience grows to two minutes.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000)]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate and key, and the authority that its clients' certificates must come from (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The authority that the server's certificate must come from, and the client's own certificate (mutual TLS)."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


def _sizes(max_bytes: int) -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", max_bytes), ("grpc.max_send_message_length", max_bytes)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable PEM file") from None


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Adds the token to every call."""

    def __init__(self, token: str) -> None:
        self._metadata = ("authorization", f"Bearer {token}")

    def _with_token(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._metadata])

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)


def connect(
    address: str,
    tls: ClientTls | None = None,
    token: str = "",
    *,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    keepalive_seconds: int = KEEPALIVE_SECONDS,
) -> grpc.Channel:
    """A channel to HOST:PORT, or to several servers of one service: see `balancing.target`, and for what it raises.

    A token goes in clear where there is no TLS, hence to loopback only. -1 is no limit of messages.
    """
    found = target(address, tls=tls is not None)
    options = [
        ("grpc.keepalive_time_ms", keepalive_seconds * 1000),
        *_KEEPALIVE,
        *_sizes(max_message_bytes),
        *_RECONNECT,
        ("grpc.enable_retries", 0),
        *found.options,
    ]
    if tls is None:
        loopback = all(map(is_loopback, found.hosts))
        if not loopback:
            log.warning("INSECURE: what goes to %s and back can be read by anybody on the way", address)
        if token and not loopback:
            raise InsecureAddress(
                "a token would go in clear", where=address, fix="--tls-ca with the server's authority"
            )
        channel = grpc.insecure_channel(found.name, options)
    else:
        key = _read(tls.key) if tls.key else None
        certificate = _read(tls.certificate) if tls.certificate else None
        credentials = grpc.ssl_channel_credentials(_read(tls.ca), key, certificate)
        channel = grpc.secure_channel(found.name, credentials, options)
    return grpc.intercept_channel(channel, _Bearer(token)) if token else channel


def create_server(tokens: Collection[str] = (), interceptors: Sequence[Any] = ()) -> grpc.aio.Server:
    """An asyncio server with our interceptors and limits; bind it before it starts."""
    options = [
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        *_KEEPALIVE,
        *_CONNECTIONS,
        *_sizes(MAX_MESSAGE_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 500),
        # On by default on Linux, where a second server would then share the port in silence.
        ("grpc.so_reuseport", 0),
    ]
    auth = [BearerAuth(tokens)] if tokens else []
    return grpc.aio.server(
        interceptors=[Errors(), Crowd(MAX_CONCURRENT_CALLS), *auth, *interceptors],
        options=options,
        maximum_concurrent_rpcs=2 * MAX_CONCURRENT_CALLS,
    )


def bind(server: grpc.aio.Server, host: str, port: int, tls: ServerTls | None = None, *, insecure: bool = False) -> int:
    """Binds to HOST:PORT (0 takes a free one) and returns the port. Raises PortTaken, InsecureAddress."""
    if tls is None and not is_loopback(host):
        if not insecure:
            raise InsecureAddress(
                "anybody on the network could read and join", where=host, fix="--tls-cert and --tls-key, or --insecure"
            )
        log.warning("INSECURE: %s is reachable without TLS; anybody on its network can read and join", host)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    probe(host, port)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        pair = [(_read(tls.key), _read(tls.certificate))]
        _check_pair(tls)
        ca = _read(tls.client_ca) if tls.client_ca else None
        return server.add_secure_port(
            address, grpc.ssl_server_credentials(pair, ca, require_client_auth=ca is not None)
        )
    except RuntimeError as error:
        raise PortTaken(str(error), where=address, fix="another port, or 0 for any free one") from None


def _check_pair(tls: ServerTls) -> None:
    """gRPC reports a certificate that it cannot use as a port that it cannot bind."""
    try:
        # The empty password: nobody is asked for another.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        fix = "a certificate chain and its own key, not encrypted, both PEM"
        raise InvalidInput(f"no identity: {error}", where=f"{tls.certificate}, {tls.key}", fix=fix) from None


def probe(host: str, port: int) -> None:
    """gRPC reports a taken port with a riddle; the operating system says it plainly. Raises PortTaken."""
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            fix = "another port, or 0 for any free one"
            raise PortTaken(error.strerror or str(error), where=f"{host}:{port}", fix=fix) from None


def is_loopback(host: str) -> bool:
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
