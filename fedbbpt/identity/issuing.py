"""X.509: keys, signing requests, and certificates of an authority, of servers and of members."""

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedbbpt.errors import InvalidInput
from fedbbpt.identity.roles import Role

MAX_CERTIFIED_CHARACTERS = 64
"""Characters of a name in a certificate (RFC 5280, ub-common-name)."""
MAX_REQUEST_BYTES = 16_384
_RSA_BITS = range(2048, 4097)
_CLOCK_SKEW = timedelta(minutes=5)

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    """Returns a new private key, on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """Returns an unencrypted private key as PEM."""
    kind, no = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, no)


def read_key(pem: bytes, where: str) -> Key:
    """Returns a private key of `key_pem`. Raises InvalidInput."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"not a key: {error}", where=where, fix="the file as fedbbpt wrote it") from None
    if not isinstance(key, Key):
        raise InvalidInput("a key of another kind", where=where, fix="the file as fedbbpt wrote it")
    return key


def pem(certificate: x509.Certificate) -> bytes:
    """Returns a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def signing_request(key: Key) -> bytes:
    """Returns a signing request (PEM) without a name: the authority knows it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def requested_key(request: bytes) -> CertificatePublicKeyTypes:
    """Returns the public key of a signing request (PEM), whose holder has signed it. Raises InvalidInput."""
    fix = "a PKCS #10 request in PEM for a key on P-256 or P-384, or an RSA key of 2048 to 4096 bits"
    if len(request) > MAX_REQUEST_BYTES:
        raise InvalidInput(f"{len(request)} bytes", where="signing_request", fix=f"at most {MAX_REQUEST_BYTES}")
    try:
        asked = x509.load_pem_x509_csr(request)
        key, signed = asked.public_key(), asked.is_signature_valid
    except Exception:  # the parser raises many kinds of errors for bytes of strangers
        raise InvalidInput("not a signing request", where="signing_request", fix=fix) from None
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    if not signed or not (curve or (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS)):
        raise InvalidInput("a request for a key that is not accepted", where="signing_request", fix=fix)
    return key


def key_bytes(key: CertificatePublicKeyTypes) -> bytes:
    """Returns a public key as DER (SubjectPublicKeyInfo)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def authority_certificate(key: Key, days: int) -> x509.Certificate:
    """Returns the certificate of a new authority, signed by itself."""
    name = _subject("fedbbpt authority")
    builder = _builder(name, name, key.public_key(), days)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def server_certificate(
    host: str, key: CertificatePublicKeyTypes, ca: x509.Certificate, ca_key: Key, days: int
) -> x509.Certificate:
    """Returns the certificate of a server at this name or IP address. Raises InvalidInput."""
    named: x509.GeneralName
    try:
        named = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        try:
            named = x509.DNSName(host)
        except ValueError:
            fix = "a host name in ASCII, or an IP address"
            raise InvalidInput(f"{host!r} cannot be in a certificate", where="HOST", fix=fix) from None
    builder = _builder(_subject(host[:MAX_CERTIFIED_CHARACTERS]), ca.subject, key, days)
    builder = builder.add_extension(x509.SubjectAlternativeName([named]), critical=False)
    return _signed(builder, ExtendedKeyUsageOID.SERVER_AUTH, ca_key)


def member_certificate(
    name: str, role: Role, key: CertificatePublicKeyTypes, ca: x509.Certificate, ca_key: Key, days: int
) -> x509.Certificate:
    """Returns the certificate of a member, with its name as CN and its role as OU."""
    builder = _builder(_subject(name, role), ca.subject, key, days)
    return _signed(builder, ExtendedKeyUsageOID.CLIENT_AUTH, ca_key)


def _subject(name: str, role: Role | None = None) -> x509.Name:
    unit = [] if role is None else [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(role))]
    return x509.Name([*unit, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _signed(builder: x509.CertificateBuilder, use: x509.ObjectIdentifier, ca_key: Key) -> x509.Certificate:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
