"""The rpcs by which members get certificates, and the server on which callers need none; enrolment.proto has both."""

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc

from fedbbpt.errors import NotPermitted
from fedbbpt.limits import MAX_STRANGER_BYTES
from fedbbpt.v1 import enrolment_pb2 as pb
from fedbbpt.v1 import enrolment_pb2_grpc
from fedbbpt.wire.channel import bind, by_name, create_server
from fedbbpt.wire.interceptors import SERIAL, CallInterceptor, Context, current_caller
from fedbbpt.wire.tls import ServerCertificates, ServerTls

if TYPE_CHECKING:  # few coordinators sign certificates
    from fedbbpt.identity.authority import Authority

ENROLMENT_SERVICE = pb.DESCRIPTOR.services_by_name["EnrolmentService"].full_name
MAX_ENROLMENTS = 64
"""Calls of strangers that may be open at a time."""


class EnrolmentService(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Hands out the certificates of an authority. Its files are written on threads."""

    def __init__(self, authority: "Authority") -> None:
        self._authority = authority

    async def GetAuthority(self, request: pb.GetAuthorityRequest, context: Context) -> pb.GetAuthorityResponse:
        return pb.GetAuthorityResponse(certificate=await asyncio.to_thread(self._authority.ca.read_bytes))

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.EnrolResponse:
        made = await asyncio.to_thread(self._authority.enrol, request.token, request.signing_request)
        return pb.EnrolResponse(certificate=made)

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        proof = current_caller().proof
        if not proof.startswith(SERIAL):
            fix = "--client-cert with the certificate to renew"
            raise NotPermitted("the caller shows no certificate", where="certificate", fix=fix)
        serial = proof.removeprefix(SERIAL)
        made = await asyncio.to_thread(self._authority.renew, serial, request.signing_request)
        return pb.RenewResponse(certificate=made)


@dataclass(frozen=True, slots=True)
class EnrolmentServer:
    """A started server for callers without certificates."""

    server: grpc.aio.Server
    port: int
    certificates: ServerCertificates


async def serve_enrolment(authority: "Authority", host: str, port: int, tls: ServerTls) -> EnrolmentServer:
    """Starts a server on which callers without certificates may enrol, and do nothing else.

    Raises:
        InvalidInput: a TLS file is invalid.
        PortTaken: another process listens on the port.
    """
    certificates = ServerCertificates(replace(tls, client_ca=None))
    server = create_server(host, CallInterceptor(MAX_ENROLMENTS, tokens=[]), max_message_bytes=MAX_STRANGER_BYTES)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentService(authority), by_name(server))
    bound = bind(server, host, port, certificates)
    await server.start()
    return EnrolmentServer(server, bound, certificates)
