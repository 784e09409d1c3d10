"""Why a server cannot be reached: the cause of a failed connection, which gRPC hides or names in its own words.

Opens up to three connections of its own, each for a few seconds at most. They carry the beginning of an HTTP/2
connection or a TLS handshake, and never a call or a token.
"""

import contextlib
import socket
import ssl

from fedbbpt.errors import FedbbptError, TlsFailed, Unavailable, WrongService
from fedbbpt.wire.addresses import Address, Server
from fedbbpt.wire.peers import Peer
from fedbbpt.wire.proxies import proxy_before
from fedbbpt.wire.tls import ClientTls, verifying_context

PROBE_SECONDS = 3.0
"""Time for each step of a connection."""

_SETTINGS = 4
"""The type of the frame that begins each side of an HTTP/2 connection (RFC 9113, section 6.5)."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""What a client sends first: the preface and an empty SETTINGS frame."""

_VERIFY_EXPIRED, _VERIFY_NOT_YET_VALID = 10, 9
_VERIFY_SELF_SIGNED = 18
_VERIFY_UNKNOWN_AUTHORITY = (2, 19, 20, 21)
_VERIFY_WRONG_NAME = (62, 64)
"""OpenSSL's results of the verification of a certificate (X509_V_ERR_...)."""


def find_cause(address: Address, tls: ClientTls | None, peer: Peer, text: str = "") -> FedbbptError | None:
    """Returns why a channel to `address` has no connection, or None if no cause is found.

    An Unavailable may pass by itself; other errors last until somebody changes something. Of a server behind a proxy,
    which only gRPC reaches, the cause is what gRPC says.

    Args:
        address: The address of the service.
        tls: The channel's files for TLS.
        peer: What is at the address.
        text: What gRPC says about the failure.
    """
    for server in address.servers:
        variable = proxy_before(server)
        cause = _behind_proxy(server, peer, variable, text) if variable else _Probe(server, tls, peer).cause()
        if cause is not None:
            return cause
    return None


def _behind_proxy(server: Server, peer: Peer, variable: str, text: str) -> FedbbptError:
    last = text.rpartition("last error: ")[2]
    what = f"no connection through the proxy that {variable} names ({last or 'no answer'})"
    if "CERTIFICATE_VERIFY_FAILED" in text or "Hostname Verification" in text:
        fix = f"{peer.prefix}tls-ca with the authority of the server, and a certificate for {server.host}"
        return TlsFailed(what, where=str(server), fix=fix)
    fix = f"a proxy that runs, or {server.host} in no_proxy if this machine reaches it directly"
    return Unavailable(what, where=str(server), fix=fix)


class _Probe:
    """Examines one server."""

    def __init__(self, server: Server, tls: ClientTls | None, peer: Peer) -> None:
        self._server, self._tls, self._peer = server, tls, peer

    def cause(self) -> FedbbptError | None:
        """Returns why there is no connection, or None if no cause is found."""
        try:
            line = self._dial()
        except socket.gaierror as error:
            what = f"the name {self._server.host} cannot be resolved: {error.strerror}"
            return self._unavailable(what, "a host name that this machine's DNS knows")
        except ConnectionRefusedError:
            what = "connection refused, as nothing listens there"
            return self._unavailable(what, "the address that the service printed when it started")
        except TimeoutError:
            fix = "the right host, and firewalls that let connections to this port through"
            return self._unavailable(f"no connection within {PROBE_SECONDS:g} s", fix)
        except OSError as error:
            return self._unavailable(f"no connection: {error.strerror or error}", "a host that this machine can reach")
        with line:
            return self._plain_cause(line) if self._tls is None else self._tls_cause(line, self._tls)

    def _dial(self) -> socket.socket:
        return socket.create_connection((self._server.host, self._server.port), timeout=PROBE_SECONDS)

    def _plain_cause(self, line: socket.socket) -> FedbbptError | None:
        try:
            line.sendall(_PREFACE)
            first = line.recv(9)
        except TimeoutError:
            return self._unavailable(f"the server accepts connections, but stays silent for {PROBE_SECONDS:g} s")
        except OSError:
            first = b""
        if first[3:4] == bytes([_SETTINGS]):
            return None
        if first.startswith(b"HTTP/"):
            return self._wrong_service("a web server answers, which speaks HTTP/1")
        if self._speaks_tls():
            fix = f"{self._peer.prefix}tls-ca with the authority that signed its certificate"
            return self._failed("the server requires TLS", fix)
        if first:
            return self._wrong_service("something else than a gRPC service answers")
        return self._unavailable("the server closes the connection at once; it may have as many as it takes")

    def _speaks_tls(self) -> bool:
        """Returns whether the server answers a TLS handshake. Verifies nothing, because nothing is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with self._dial() as line, context.wrap_socket(line):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False

    def _tls_cause(self, line: socket.socket, tls: ClientTls) -> FedbbptError | None:
        try:
            with verifying_context(tls).wrap_socket(
                line, server_hostname=self._server.host.partition("%")[0]
            ) as secure:
                if secure.selected_alpn_protocol() != "h2":
                    return self._wrong_service("a server answers that speaks TLS, but not HTTP/2")
                # With TLS 1.3 a server reads the client's certificate after the handshake, and hangs up if it refuses.
                try:
                    refusal = None if secure.recv(1) else ""
                except TimeoutError:
                    refusal = None
                except OSError as error:
                    refusal = getattr(error, "reason", None) or ""
                return None if refusal is None else self._client_certificate_cause(refusal, tls)
        except ssl.SSLCertVerificationError as error:
            return self._certificate_cause(error, tls)
        except ssl.SSLError as error:
            return self._handshake_cause(error.reason or str(error), tls)
        except TimeoutError:
            return self._unavailable(f"the server does not answer a TLS handshake within {PROBE_SECONDS:g} s")
        except OSError:
            return self._unavailable("the server closes the connection during the TLS handshake")

    def _client_certificate_cause(self, refusal: str, tls: ClientTls) -> TlsFailed:
        """Returns the cause of a connection that the server ended when it had the client's certificate, or none."""
        options = f"{self._peer.prefix}client-cert and {self._peer.prefix}client-key"
        if tls.certificate is None:
            what = "the server hangs up after the TLS handshake, so it may admit only callers with a certificate"
            return self._failed(what, options)
        alert = refusal.partition("ALERT_")[2].replace("_", " ").lower()
        what = f"the server refuses the certificate in {tls.certificate}" + (f": {alert}" if alert else "")
        return self._failed(what, f"{options} of an authority that the server trusts")

    def _certificate_cause(self, error: ssl.SSLCertVerificationError, tls: ClientTls) -> FedbbptError:
        option = f"{self._peer.prefix}tls-ca"
        if error.verify_code in _VERIFY_WRONG_NAME:
            names = " and ".join(self._names(tls)) or "no host"
            what = f"the server's certificate is for {names}, not for {self._server.host}"
            fix = f"{self._peer.option} with a host in the certificate, or a certificate for {self._server.host}"
            return self._failed(what, fix)
        if error.verify_code == _VERIFY_EXPIRED:
            return self._failed("the server's certificate has expired", "a new certificate, or this machine's clock")
        if error.verify_code == _VERIFY_NOT_YET_VALID:
            what = "the server's certificate is not valid yet"
            return self._failed(what, "this machine's clock, or another certificate")
        if error.verify_code == _VERIFY_SELF_SIGNED:
            what = f"the server's certificate is self-signed, and not in {tls.ca}"
            return self._failed(what, f"{option} with this certificate, if you trust it")
        if error.verify_code in _VERIFY_UNKNOWN_AUTHORITY:
            what = f"the server's certificate was not signed by an authority in {tls.ca}"
            return self._failed(what, f"{option} with the authority that signed it")
        what = f"the server's certificate cannot be verified ({error.verify_message})"
        return self._failed(what, f"another certificate, or another {option}")

    def _names(self, tls: ClientTls) -> list[str]:
        """Returns the hosts in the server's certificate."""
        context = verifying_context(tls)
        context.check_hostname = False
        with contextlib.suppress(OSError), self._dial() as line, context.wrap_socket(line) as secure:
            certificate = secure.getpeercert() or {}
            return [str(pair[1]) for pair in certificate.get("subjectAltName", ()) if isinstance(pair, tuple)]
        return []

    def _handshake_cause(self, reason: str, tls: ClientTls) -> FedbbptError:
        """Returns the cause of a failed handshake from OpenSSL's name for it."""
        if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            return self._client_certificate_cause(reason, tls)
        if "ALERT" in reason:
            return self._failed(f"the server ends the TLS handshake: {reason}", "a server with TLS 1.2 or 1.3")
        first = b""
        with contextlib.suppress(OSError), self._dial() as line:
            line.sendall(_PREFACE)
            first = line.recv(9)
        if first[3:4] == bytes([_SETTINGS]):
            fix = f"a server with --tls-cert and --tls-key, or no {self._peer.prefix}tls-ca"
            return self._failed("the server has no TLS", fix)
        if first:
            return self._wrong_service("something else than a gRPC service answers, without TLS")
        return self._unavailable("the server closes the connection during the TLS handshake")

    def _unavailable(self, what: str, fix: str = "a service that runs at this address") -> Unavailable:
        return Unavailable(what, where=str(self._server), fix=fix)

    def _failed(self, what: str, fix: str) -> TlsFailed:
        return TlsFailed(what, where=str(self._server), fix=fix)

    def _wrong_service(self, what: str) -> WrongService:
        return WrongService(what, where=str(self._server), fix=f"the address of {self._peer.name}")
