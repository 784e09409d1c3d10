"""An authority in a folder: it issues the certificates of servers and members, and knows which were revoked.

The folder has `ca.pem` and `ca.key`, HOST.pem and HOST.key of each server, `members.json` with invitations and
certificates, and `revoked.pem`, the list of revoked certificates for services elsewhere. Several processes may use it
at a time, such as a coordinator and `fedbbpt admin`.
"""

import fcntl
import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from fedbbpt.errors import InvalidInput, NotPermitted, Unauthenticated
from fedbbpt.host.files import atomic_write
from fedbbpt.identity import issuing
from fedbbpt.identity.certificates import serial_text
from fedbbpt.identity.invitations import Invitation
from fedbbpt.identity.names import check_name
from fedbbpt.identity.revocation import revocation_list
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import token_digest

AUTHORITY_DAYS, SERVER_DAYS, MEMBER_DAYS = 3650, 825, 90
"""How long certificates are valid."""
_CA, _CA_KEY, _MEMBERS, _REVOKED, _LOCK = "ca.pem", "ca.key", "members.json", "revoked.pem", "lock"
_TOKEN_BYTES = 16
_OWNER_ONLY, _OWNER_ONLY_FOLDER = 0o600, 0o700


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation as the authority keeps it."""

    name: str
    role: Role
    token_sha256: str
    expires: str
    """ISO 8601, UTC."""
    key_sha256: str = ""
    """SHA-256 of the public key that has used it, which may use it again; empty: it is unused."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate that the authority has issued to a member."""

    name: str
    role: Role
    serial: str
    """Hexadecimal."""
    expires: str
    """ISO 8601, UTC."""
    revoked: bool = False


@dataclass(slots=True)
class _Records:
    invitations: list[Invited] = field(default_factory=list)
    certificates: list[Certified] = field(default_factory=list)


class Authority:
    """The authority in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidInput if the folder has no authority."""
        self._folder = folder
        try:
            ca, key = (folder / _CA).read_bytes(), (folder / _CA_KEY).read_bytes()
            self._ca = x509.load_pem_x509_certificate(ca)
        except OSError as error:
            what, fix = f"no authority: {error.strerror}", "`fedbbpt admin init-ca` makes one"
            raise InvalidInput(what, where=str(error.filename or folder), fix=fix) from None
        except ValueError:
            fix = "the file as `fedbbpt admin init-ca` wrote it"
            raise InvalidInput("not a certificate", where=str(folder / _CA), fix=fix) from None
        self._key = issuing.read_key(key, str(folder / _CA_KEY))

    @staticmethod
    def found(folder: Path) -> "Authority":
        """Returns the folder's authority, and makes what the folder lacks of one. Raises InvalidInput, OSError."""
        if not (folder / _CA).exists():
            folder.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
            key = issuing.new_key()
            atomic_write(folder / _CA_KEY, issuing.key_pem(key), mode=_OWNER_ONLY)
            atomic_write(folder / _CA, issuing.pem(issuing.authority_certificate(key, AUTHORITY_DAYS)))
        authority = Authority(folder)
        if not (folder / _REVOKED).exists():
            with authority._changing() as records:
                authority._list_revoked(records)
        return authority

    @property
    def ca(self) -> Path:
        """The file with the authority's certificate."""
        return self._folder / _CA

    @property
    def records(self) -> Path:
        """The file with the invitations and certificates, which changes with each of them."""
        return self._folder / _MEMBERS

    @property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the authority's certificate."""
        return self._ca.fingerprint(hashes.SHA256())

    def certify_server(self, host: str) -> tuple[Path, Path]:
        """Issues a new certificate for a server; returns its file and that of its key. Raises InvalidInput, OSError."""
        key = issuing.new_key()
        certificate = issuing.server_certificate(host, key.public_key(), self._ca, self._key, SERVER_DAYS)
        name = host.replace(":", "-")
        chain, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        atomic_write(secret, issuing.key_pem(key), mode=_OWNER_ONLY)
        atomic_write(chain, issuing.pem(certificate))
        return chain, secret

    def invite(self, name: str, role: Role, hours: float) -> Invitation:
        """Returns a new invitation, in place of the member's earlier ones. Raises InvalidInput."""
        check_name(name, "NAME")
        if len(name) > issuing.MAX_CERTIFIED_CHARACTERS:
            fix = f"at most {issuing.MAX_CERTIFIED_CHARACTERS}, as certificates have no room for more"
            raise InvalidInput(f"a name of {len(name)} characters", where="NAME", fix=fix)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        expires = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
        with self._changing() as records:
            others = [each for each in records.invitations if each.name != name and _valid(each.expires)]
            records.invitations = [*others, Invited(name, role, token_digest(token), expires)]
        return Invitation(token, self.fingerprint)

    def enrol(self, token: str, request: bytes) -> bytes:
        """Returns the certificate (PEM) of the member with this invitation, for the key of its signing request (PEM).

        Raises Unauthenticated, InvalidInput.
        """
        key = issuing.requested_key(request)
        digest = hashlib.sha256(issuing.key_bytes(key)).hexdigest()
        with self._changing() as records:
            found = next((each for each in records.invitations if each.token_sha256 == token_digest(token)), None)
            if found is None or not _valid(found.expires) or found.key_sha256 not in ("", digest):
                what = "the invitation is unknown, has expired, or was used for another key"
                raise Unauthenticated(what, where="token", fix="a new one from `fedbbpt admin invite`")
            records.invitations[records.invitations.index(found)] = replace(found, key_sha256=digest)
            return self._certify(records, found.name, found.role, key)

    def renew(self, serial: str, request: bytes) -> bytes:
        """Returns a new certificate (PEM) for the holder of the one with this serial number.

        Raises NotPermitted if the authority has not issued it or has revoked it, and InvalidInput.
        """
        key = issuing.requested_key(request)
        with self._changing() as records:
            found = next((each for each in records.certificates if each.serial == serial), None)
            if found is None or found.revoked:
                fix = "an invitation from `fedbbpt admin invite`"
                raise NotPermitted("not a certificate of this authority", where="certificate", fix=fix)
            return self._certify(records, found.name, found.role, key)

    def revoke(self, name: str) -> int:
        """Revokes a member's certificates and invitations; returns the number of certificates that were valid.

        Raises InvalidInput if there are neither.
        """
        with self._changing() as records:
            mine = [each for each in records.certificates if each.name == name]
            if not mine and all(each.name != name for each in records.invitations):
                raise InvalidInput(f"no member {name!r}", where="NAME", fix="a name that `fedbbpt admin list` shows")
            records.certificates = [
                replace(each, revoked=True) if each.name == name else each for each in records.certificates
            ]
            records.invitations = [each for each in records.invitations if each.name != name]
            self._list_revoked(records)
        return sum(not each.revoked and _valid(each.expires) for each in mine)

    def revoked(self) -> frozenset[str]:
        """Returns the serial numbers of revoked certificates. Raises InvalidInput."""
        return frozenset(each.serial for each in self._read().certificates if each.revoked)

    def _list_revoked(self, records: _Records) -> None:
        """Writes the list of revoked certificates for services that have no part in this folder."""
        serials = [each.serial for each in records.certificates if each.revoked]
        atomic_write(self._folder / _REVOKED, revocation_list(serials, self._ca, self._key))

    def members(self) -> tuple[Sequence[Invited], Sequence[Certified]]:
        """Returns the open invitations and the certificates that have not expired. Raises InvalidInput."""
        records = self._read()
        invitations = [each for each in records.invitations if _valid(each.expires) and not each.key_sha256]
        return invitations, [each for each in records.certificates if _valid(each.expires)]

    def _certify(self, records: _Records, name: str, role: Role, key: CertificatePublicKeyTypes) -> bytes:
        certificate = issuing.member_certificate(name, role, key, self._ca, self._key, MEMBER_DAYS)
        expires = certificate.not_valid_after_utc.isoformat(timespec="seconds")
        records.certificates = [each for each in records.certificates if _valid(each.expires)]
        records.certificates.append(Certified(name, role, serial_text(certificate), expires))
        return issuing.pem(certificate)

    @contextmanager
    def _changing(self) -> Iterator[_Records]:
        """Gives the records to change, and writes them; other processes wait meanwhile."""
        with (self._folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = self._read()
            yield records
            text = json.dumps(asdict(records), indent=2)
            atomic_write(self.records, f"{text}\n", mode=_OWNER_ONLY)

    def _read(self) -> _Records:
        try:
            content = json.loads(self.records.read_text(encoding="utf-8"))
            invited = [Invited(**{**each, "role": Role(each["role"])}) for each in content["invitations"]]
            certified = [Certified(**{**each, "role": Role(each["role"])}) for each in content["certificates"]]
        except FileNotFoundError:
            return _Records()
        except (OSError, ValueError, TypeError, KeyError) as error:
            fix = "the file as `fedbbpt admin` wrote it"
            raise InvalidInput(f"not the members of an authority: {error}", where=str(self.records), fix=fix) from None
        return _Records(invited, certified)


def _valid(expires: str) -> bool:
    return datetime.fromisoformat(expires) > datetime.now(UTC)
