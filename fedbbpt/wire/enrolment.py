"""A member's side of enrolment: it recognises the authority by an invitation, and gets a certificate for its key."""

import hashlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import grpc

from fedbbpt.errors import CoordinatorUnavailable, TlsFailed
from fedbbpt.identity.invitations import Invitation
from fedbbpt.v1 import enrolment_pb2 as pb
from fedbbpt.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.channel import Channel, connect
from fedbbpt.wire.peers import line_of
from fedbbpt.wire.tls import ClientTls

CALL_SECONDS = 30.0

T = TypeVar("T")


def fetch_authority(address: str, invitation: Invitation) -> bytes:
    """Returns the certificate (PEM) of the authority of a coordinator, which is the one of the invitation.

    The connection is not verified, and nothing secret is sent on it: only the digest says that the answer is right.

    Raises:
        TlsFailed: The coordinator has another authority.
        CoordinatorUnavailable: The coordinator does not answer.
    """
    with TemporaryDirectory() as folder:
        unverified = Path(folder) / "server.pem"
        unverified.write_text(_server_certificate(address))
        with connect(address, ClientTls(unverified)) as channel:
            pem = _call(channel, lambda stub: stub.GetAuthority(pb.GetAuthorityRequest(), timeout=CALL_SECONDS))
    try:
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.certificate.decode())).digest()
    except ValueError:
        digest = b""
    if digest != invitation.fingerprint:
        what = "the coordinator's authority is not the one of the invitation, so something else may be listening here"
        raise TlsFailed(what, where=address, fix="the address and the invitation that the operator gave you")
    return pem.certificate


def enrol(address: str, ca: Path, token: str, request: bytes) -> bytes:
    """Returns the certificate (PEM) for a signing request (PEM), from the coordinator that `ca` certifies.

    Raises Unauthenticated, InvalidInput, CoordinatorUnavailable, TlsFailed.
    """
    with connect(address, ClientTls(ca)) as channel:
        asked = pb.EnrolRequest(token=token, signing_request=request)
        return _call(channel, lambda stub: stub.Enrol(asked, timeout=CALL_SECONDS)).certificate


def renew(address: str, tls: ClientTls, request: bytes) -> bytes:
    """Returns a new certificate (PEM) for a signing request (PEM), in place of the one in `tls`.

    Raises NotPermitted, Unauthenticated, InvalidInput, CoordinatorUnavailable, TlsFailed.
    """
    with connect(address, tls) as channel:
        asked = pb.RenewRequest(signing_request=request)
        return _call(channel, lambda stub: stub.Renew(asked, timeout=CALL_SECONDS)).certificate


def _call(channel: Channel, call: Callable[[EnrolmentServiceStub], T]) -> T:
    try:
        return call(EnrolmentServiceStub(channel))
    except grpc.RpcError as error:
        raise line_of(channel).problem(error, CoordinatorUnavailable) from None


def _server_certificate(address: str) -> str:
    """Returns the certificate (PEM) that a server shows, unverified."""
    (server,) = parse_address(address, "--coordinator", several=False).servers
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((server.host, server.port), timeout=CALL_SECONDS) as line,
            context.wrap_socket(line, server_hostname=server.host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except OSError as error:
        fix = "the address that the operator gave you, with the port for enrolment"
        raise CoordinatorUnavailable(f"no TLS connection: {error.strerror or error}", where=address, fix=fix) from None
    assert shown is not None, "a TLS server shows a certificate"
    return ssl.DER_cert_to_PEM_cert(shown)
