"""TLS: which PEM files each side uses, and the gRPC credentials made from them."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from fedbbpt.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate and key. With `client_ca`, clients must show a certificate of that authority (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The authority that must have issued the server's certificate, and the client's own certificate for mTLS."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Reads the files. Raises InvalidInput if one cannot be read, or if certificate and key do not belong together."""
    pair = [(_read(tls.key), _read(tls.certificate))]
    _check_pair(tls)
    ca = _read(tls.client_ca) if tls.client_ca else None
    return grpc.ssl_server_credentials(pair, ca, require_client_auth=ca is not None)


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Reads the files. Raises InvalidInput if one cannot be read."""
    key = _read(tls.key) if tls.key else None
    certificate = _read(tls.certificate) if tls.certificate else None
    return grpc.ssl_channel_credentials(_read(tls.ca), key, certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable PEM file") from None


def _check_pair(tls: ServerTls) -> None:
    """Raises InvalidInput for an unusable certificate, which gRPC would report as a port that cannot be bound."""
    try:
        # With the empty password, OpenSSL fails on an encrypted key instead of prompting for a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        what, where = f"certificate and key cannot be used: {error}", f"{tls.certificate}, {tls.key}"
        raise InvalidInput(what, where=where, fix="a certificate chain and its unencrypted key, both PEM") from None
