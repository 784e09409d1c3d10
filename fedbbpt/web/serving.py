"""Serves a web application, with this project's rules of who may reach it and how it ends.

It listens on loopback, unless it has TLS and requires a token or a certificate of each caller.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from fedbbpt.errors import InsecureAddress
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token
from fedbbpt.limits import MAX_CONCURRENT_CALLS
from fedbbpt.web.guard import MAX_BODY_BYTES, Guard
from fedbbpt.wire.addresses import check_exposure, check_port_free, is_loopback
from fedbbpt.wire.tls import ServerCertificates, ServerTls

log = logging.getLogger(__name__)

GRACE_SECONDS = 2
"""How long open requests may take to finish when the server stops."""
KEEP_ALIVE_SECONDS = 15
"""How long a connection without a request stays open."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """The address that a web application listens on, and how the application identifies itself there."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one."""
    tls: ServerTls | None = None
    insecure: bool = False
    """Whether it may listen beyond loopback without TLS and tokens."""


class WebServer:
    """A web application on an address of this machine."""

    def __init__(
        self,
        app: ASGIApp,
        address: WebAddress,
        *,
        tokens: Sequence[Token] | None = None,
        roles: Collection[Role] = frozenset(Role),
        sign_in: str = "",
        open_paths: tuple[str, ...] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Listens on the address; requests wait until `run`.

        Args:
            app: The application.
            address: Where to listen.
            tokens, roles, sign_in, open_paths, max_body_bytes: As for Guard.
            before_end: Ends the application's open streams, which would hold up the end of the server.

        Raises:
            InsecureAddress: Other machines can reach the address, without TLS, or without tokens or certificates.
            InvalidInput: The host is not one of this machine, or a TLS file is unusable.
            PortTaken: The port cannot be bound.
        """
        check_who_may_reach(address, asks=tokens is not None)
        if address.tls is not None:
            ServerCertificates(address.tls)  # for its messages
        check_port_free(address.host, address.port)
        self._guard = Guard(
            app,
            tokens,
            roles,
            any_host=address.insecure or not is_loopback(address.host),
            sign_in=sign_in,
            open_paths=open_paths,
            max_body_bytes=max_body_bytes,
        )
        family, _, _, _, bound = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(bound[:2], family=family)
        self.port: int = self._socket.getsockname()[1]
        self._address = address
        self._server = _Server(_configuration(self._guard, address.tls), before_end)

    @property
    def url(self) -> str:
        """The address for a browser on this machine, without a path."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._address.host, self._address.host)
        return f"http{'s' if self._address.tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def reload(self, tokens: Sequence[Token] | None) -> None:
        """Reads the TLS files again, and accepts these tokens in place of the old. Raises InvalidInput."""
        if self._address.tls is not None and (context := self._server.config.ssl) is not None:
            ServerCertificates(self._address.tls)
            context.load_cert_chain(self._address.tls.certificate, self._address.tls.key)
        self._guard.accept(tokens)

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT, which end the process as they do elsewhere, or until `stop`."""
        self._server.run([self._socket])

    def stop(self) -> None:
        """Ends `run`, from another thread."""
        self._server.should_exit = True


def check_who_may_reach(address: WebAddress, *, asks: bool) -> None:
    """Checks that other machines can reach the address only with TLS and credentials.

    Args:
        address: Where a server is going to listen.
        asks: Whether it asks callers for tokens.

    Raises:
        InsecureAddress: They can. If `insecure` is set, this is only logged as a warning.
    """
    if address.tls is None:
        fix = "--tls-cert and --tls-key with --tokens, or --insecure"
        check_exposure(address.host, insecure=address.insecure, what="the server has no TLS", fix=fix)
    elif not is_loopback(address.host) and not asks and address.tls.client_ca is None:
        if not address.insecure:
            what, fix = "anybody on the network could use the server without a token", "--tokens, or --insecure"
            raise InsecureAddress(what, where=address.host, fix=fix)
        log.warning("INSECURE: anybody on the network of %s can use the server without a token", address.host)


class _Server(uvicorn.Server):
    """Ends the application's streams when it is asked to end; uvicorn itself would wait for them."""

    def __init__(self, config: uvicorn.Config, before_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_end = before_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams, and then the server."""
        self._before_end()
        await super().shutdown(sockets)


def _configuration(app: ASGIApp, tls: ServerTls | None) -> uvicorn.Config:
    secured = {} if tls is None else {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    if tls is not None and tls.client_ca is not None:
        secured["ssl_ca_certs"] = tls.client_ca
    return uvicorn.Config(
        app,
        **{name: str(path) for name, path in secured.items()},  # type: ignore[arg-type]  # the options of files are texts
        ssl_cert_reqs=ssl.CERT_REQUIRED if "ssl_ca_certs" in secured else ssl.CERT_NONE,
        http="h11",
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONCURRENT_CALLS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
