"""What a verified client certificate says: its member's name and role, and its serial number."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fedbbpt.identity.roles import Role, role_of

if TYPE_CHECKING:  # only services with certificates read some
    from cryptography import x509


@dataclass(frozen=True, slots=True)
class Identity:
    """The holder of a certificate. Another authority's certificate may have an empty name."""

    name: str
    role: Role
    serial: str
    """The serial number, hexadecimal."""


@lru_cache(maxsize=4096)
def identity_of(pem: bytes) -> Identity:
    """Returns the holder of a certificate that TLS has verified.

    The common name (CN) is the member's name, and the organisational unit (OU) its role. Without a role, as in
    certificates of other authorities, the holder is a client.
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificate(pem)
    roles = [role for text in _texts(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME) if (role := role_of(text))]
    names = _texts(certificate, NameOID.COMMON_NAME)
    return Identity(names[0] if names else "", roles[0] if roles else Role.CLIENT, serial_text(certificate))


def serial_text(certificate: "x509.Certificate") -> str:
    """Returns a certificate's serial number, hexadecimal."""
    return f"{certificate.serial_number:x}"


def _texts(certificate: "x509.Certificate", kind: "x509.ObjectIdentifier") -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(kind)]
