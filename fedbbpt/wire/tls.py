"""TLS: which PEM files each side uses, and the gRPC credentials made from them."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from fedbbpt.errors import InvalidInput

_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"
"""What the labels of PEM blocks end with."""


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


class ServerCertificates:
    """The content of a server's TLS files, which can be read again while it serves.

    Connections that are open keep the certificates with which they began.
    """

    def __init__(self, tls: ServerTls) -> None:
        """Reads the files. Raises InvalidInput if one is unusable, or if certificate and key do not belong together."""
        self._tls, self._first = tls, _configuration(tls)
        self._next: grpc.ServerCertificateConfiguration | None = None

    def reload(self) -> None:
        """Reads the files again, for connections from now on. Raises InvalidInput, and then changes nothing."""
        self._next = _configuration(self._tls)

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials for one gRPC server."""
        required = self._tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self._changed, require_client_authentication=required)

    # The stubs leave out that None means no change.
    def _changed(self) -> Any:
        # gRPC asks before each handshake, and parses what it gets.
        changed, self._next = self._next, None
        return changed


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    pair = [(_read(tls.key, _KEY), _read(tls.certificate, _CERTIFICATE))]
    # gRPC would report an unusable pair as a port that cannot be bound.
    _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.certificate, tls.key)
    ca = None
    if tls.client_ca is not None:
        ca = _read(tls.client_ca, _CERTIFICATE)
        _load_authority(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.client_ca)
    return grpc.ssl_server_certificate_configuration(pair, ca)


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Reads the files. Raises InvalidInput if one is unusable, or if certificate and key do not belong together."""
    key = _read(tls.key, _KEY) if tls.key else None
    certificate = _read(tls.certificate, _CERTIFICATE) if tls.certificate else None
    ca = _read(tls.ca, _CERTIFICATE)
    verifying_context(tls)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def verifying_context(tls: ClientTls) -> ssl.SSLContext:
    """Returns Python's counterpart of the channel's credentials. Raises InvalidInput if a file is unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As gRPC does, it trusts each certificate of the file, not only self-signed ones, and any size of keys.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    _load_authority(context, tls.ca)
    if tls.certificate and tls.key:
        _load_pair(context, tls.certificate, tls.key)
    return context


def _read(path: Path, kind: str) -> bytes:
    """Returns the content of a PEM file. Raises InvalidInput if the file does not hold what it is given for."""
    fix = f"a PEM file with -----BEGIN {kind}-----"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix=fix) from None
    labels = [label.decode() for label in re.findall(rb"-----BEGIN ([A-Z0-9 ]+)-----", data)]
    if not any(label.endswith(kind) for label in labels):
        other = next((other for other in (_CERTIFICATE, _KEY) if labels and labels[0].endswith(other)), "")
        what = f"the file holds no {kind.lower()}" + (f", but a {other.lower()}" if other else "")
        raise InvalidInput(what, where=str(path), fix=fix)
    return data


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        what, fix = "a certificate in the file cannot be read", "the file as its authority issued it"
        raise InvalidInput(what, where=str(path), fix=fix) from None


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    where, fix = f"{certificate}, {key}", "a certificate chain and its unencrypted key, both PEM"
    try:
        # With the empty password, OpenSSL fails on an encrypted key instead of prompting for a password.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = "the key does not belong to the certificate"
        elif b"ENCRYPTED" in key.read_bytes():
            what = "the key is encrypted"
        else:
            what = f"certificate and key cannot be used ({error.reason or error})"
        raise InvalidInput(what, where=where, fix=fix) from None
