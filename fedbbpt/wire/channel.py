"""gRPC channels and servers with this project's limits, keepalive, tokens and TLS.

Without TLS a server binds to loopback only, unless `insecure` is set; then it logs a warning.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import grpc

from fedbbpt.errors import InsecureAddress, PortTaken
from fedbbpt.limits import MAX_CONCURRENT_CALLS, MAX_MESSAGE_BYTES
from fedbbpt.wire.addresses import check_exposure, check_port_free, is_loopback, parse_address
from fedbbpt.wire.balancing import target
from fedbbpt.wire.checksummed_channel import ChecksummedChannel
from fedbbpt.wire.descriptors import connection_limit
from fedbbpt.wire.diagnosis import find_cause
from fedbbpt.wire.interceptors import CallInterceptor
from fedbbpt.wire.peers import COORDINATOR, Line, Peer, set_line
from fedbbpt.wire.strangers import STRANGER_LIMITS, StrangerLimits
from fedbbpt.wire.tls import ClientTls, ServerCertificates, channel_credentials

Channel: TypeAlias = grpc.Channel
"""A connection to a service, closed by leaving its `with` block."""

log = logging.getLogger(__name__)

# Both sides must use the same values, or the server closes the connection for too many pings.
_KEEPALIVE = [
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
# Limits of one connection. gRPC's own defaults are kept for metadata (16 KiB) and for too many pings. The age of a
# connection is unlimited, because a client's stream of tasks is one call that lasts as long as its run.
_CONNECTION = [
    ("grpc.max_concurrent_streams", 1024),
    # Close connections without a call, and those that do not finish their TLS handshake.
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
]
# By default gRPC ends calls with CANCELLED: at random if over a thousand of them wait for the event loop, and any that
# has waited for half a minute. Thousands of clients that come back together would lose their streams.
_BACKLOG = [
    ("grpc.server.max_pending_requests", MAX_CONCURRENT_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_CONCURRENT_CALLS),
    ("grpc.server_max_unrequested_time_in_server", 300),
]
# A restarted service is back within seconds, but gRPC's default backoff grows to two minutes.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000)]


def _sizes(max_bytes: int) -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", max_bytes), ("grpc.max_send_message_length", max_bytes)]


class _AddToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the bearer token to the metadata of every call."""

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

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)


def connect(
    address: str,
    tls: ClientTls | None = None,
    token: str = "",
    *,
    peer: Peer = COORDINATOR,
    where: str = "",
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.Channel:
    """Returns a channel to HOST:PORT, or to several servers of one service (see `addresses.parse_address`).

    Args:
        peer: What is at the address.
        where: The option or key that holds the address, for messages. By default the peer's option.
        max_message_bytes: Largest message in either direction; -1 means unlimited.

    Raises:
        InsecureAddress: A token would travel unencrypted to another machine.
        InvalidInput: The address or a TLS file is invalid.
        Unavailable: None of the hosts can be resolved.
    """
    peer = replace(peer, option=where or peer.option)
    parsed = parse_address(address, peer.option)
    if tls is None and not all(is_loopback(server.host) for server in parsed.servers):
        log.warning("INSECURE: without TLS, anybody on the network path can read the traffic with %s", address)
        if token:
            fix = f"{peer.prefix}tls-ca with the server's authority"
            raise InsecureAddress("a token would be sent without encryption", where=address, fix=fix)
    found = target(parsed, tls=tls is not None)
    options = [
        ("grpc.keepalive_time_ms", peer.keepalive_seconds * 1000),
        *_KEEPALIVE,
        *_sizes(max_message_bytes),
        *_RECONNECT,
        ("grpc.enable_retries", 0),
        *found.options,
    ]
    channel: grpc.Channel
    if tls is None:
        options.append(("grpc.use_local_subchannel_pool", 1))  # so that a channel opened anew has a new connection
        channel = ChecksummedChannel(lambda: grpc.insecure_channel(found.name, options))
    else:
        channel = grpc.secure_channel(found.name, channel_credentials(tls), options)
    if token:
        channel = grpc.intercept_channel(channel, _AddToken(token))
    set_line(channel, Line(f"{peer.name} at {parsed.text}", partial(find_cause, parsed, tls, peer)))
    return channel


def create_server(
    host: str,
    guard: CallInterceptor | None = None,
    interceptors: Sequence[Any] = (),
    strangers: StrangerLimits = STRANGER_LIMITS,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.aio.Server:
    """Returns an asyncio server with this project's limits. Bind it to `host` before starting it.

    Args:
        host: The address to listen on.
        guard: Limits open calls, and may require a token. By default it does not.
        interceptors: Those that follow it.
        strangers: Limits of calls that need no token, for the guard that stands there by default.
        max_message_bytes: Largest message in either direction.
    """
    limit = connection_limit(host)
    options = [
        ("grpc.keepalive_time_ms", COORDINATOR.keepalive_seconds * 1000),
        *_KEEPALIVE,
        *_CONNECTION,
        *_BACKLOG,
        *_sizes(max_message_bytes),
        # Kilobytes that become megabytes would cost their sender nothing. Bit 0 stands for messages as they are.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", COORDINATOR.keepalive_seconds * 500),
        # Linux's default would let a second server share the port without an error.
        ("grpc.so_reuseport", 0),
        *([] if limit is None else [("grpc.max_allowed_incoming_connections", limit)]),
    ]
    return grpc.aio.server(
        interceptors=[guard or CallInterceptor(MAX_CONCURRENT_CALLS, strangers=strangers), *interceptors],
        options=options,
        maximum_concurrent_rpcs=2 * MAX_CONCURRENT_CALLS,
    )


class _ByName:
    """A server as the generated `add_..._to_server` functions see it, that looks its handlers up by name."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Does nothing: gRPC would await the next call of each registered method, and do so again for every call."""


def by_name(server: grpc.aio.Server) -> Any:
    """Returns what to add the services of a server to, so that a call costs the same however many methods there are."""
    return _ByName(server)


def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    certificates: ServerCertificates | None = None,
    *,
    insecure: bool = False,
) -> int:
    """Binds the server and returns its port; `port` 0 takes a free one.

    Raises:
        InsecureAddress: `host` is reachable from other machines, without TLS and without `insecure`.
        PortTaken: The port cannot be bound.
    """
    if certificates is None:
        fix = "--tls-cert and --tls-key, or --insecure"
        check_exposure(host, insecure=insecure, what="the server has no TLS", fix=fix)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    check_port_free(host, port)
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates.credentials())
    except RuntimeError as error:
        raise PortTaken(str(error), where=address, fix="another port, or 0 for any free one") from None
