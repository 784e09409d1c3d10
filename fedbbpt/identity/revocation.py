"""Lists of revoked certificates (X.509 CRL), by which a service knows them without the authority's folder."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from fedbbpt.errors import InvalidInput
from fedbbpt.identity.issuing import Key

LIST_DAYS = 3650
"""How long a list is valid: as long as its authority. A list changes when a certificate is revoked, and not before."""
_KEYS = rsa.RSAPublicKey, ec.EllipticCurvePublicKey, dsa.DSAPublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey


def revocation_list(serials: Collection[str], ca: x509.Certificate, key: Key) -> bytes:
    """Returns an authority's list of certificates with these serial numbers (hexadecimal), signed, as PEM."""
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    builder = builder.last_update(now).next_update(now + timedelta(days=LIST_DAYS))
    for serial in sorted(serials):
        revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_revoked(path: Path, authorities: Path) -> frozenset[str]:
    """Returns the serial numbers (hexadecimal) of the certificates in a list (PEM).

    Args:
        path: The list.
        authorities: The certificates (PEM) of the authorities, one of which must have signed it.

    Raises:
        InvalidInput: A file cannot be read, or the list has expired, or is another authority's.
    """
    try:
        found = x509.load_pem_x509_crl(path.read_bytes())
        trusted = x509.load_pem_x509_certificates(authorities.read_bytes())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InvalidInput(what, where=str(error.filename or path), fix="a file of the authority") from None
    except ValueError:
        fix = "revoked.pem of the authority's folder, which `fedbbpt admin revoke` writes"
        raise InvalidInput("not a list of revoked certificates in PEM", where=str(path), fix=fix) from None
    keys = [certificate.public_key() for certificate in trusted if certificate.subject == found.issuer]
    if not any(isinstance(key, _KEYS) and found.is_signature_valid(key) for key in keys):
        what = f"the list is not signed by an authority in {authorities}"
        raise InvalidInput(what, where=str(path), fix="the list of that authority")
    if found.next_update_utc is not None and found.next_update_utc < datetime.now(UTC):
        what = f"the list has expired on {found.next_update_utc:%Y-%m-%d}"
        raise InvalidInput(what, where=str(path), fix="a newer one from the authority")
    return frozenset(f"{each.serial_number:x}" for each in found)
