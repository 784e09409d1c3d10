"""An authority in a folder: invitations, certificates, renewal and revocation."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import CertificateSigningRequestBuilder, Name, load_pem_x509_certificate

from fedbbpt.errors import InvalidInput, NotPermitted, Unauthenticated
from fedbbpt.identity import authority, issuing
from fedbbpt.identity.authority import Authority
from fedbbpt.identity.certificates import Identity, identity_of
from fedbbpt.identity.invitations import parse_invitation
from fedbbpt.identity.roles import Role


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.found(tmp_path / "authority")


def request() -> bytes:
    return issuing.signing_request(issuing.new_key())


def enrolled(ours: Authority, name: str, role: Role = Role.CLIENT) -> Identity:
    return identity_of(ours.enrol(ours.invite(name, role, 1.0).token, request()))


def test_keys_are_for_their_user_and_a_second_call_finds_the_same_authority(ours: Authority) -> None:
    folder = ours.ca.parent
    ours.certify_server("hub.example.org")
    assert folder.stat().st_mode & 0o077 == 0
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in ("ca.key", "hub.example.org.key"))
    assert Authority.found(folder).fingerprint == ours.fingerprint


def test_a_member_gets_a_certificate_of_the_authority_for_its_name_and_role(ours: Authority) -> None:
    pem = ours.enrol(ours.invite("desk", Role.OPERATOR, 1.0).token, request())
    holder, certificate = identity_of(pem), load_pem_x509_certificate(pem)
    assert (holder.name, holder.role) == ("desk", Role.OPERATOR)
    certificate.verify_directly_issued_by(load_pem_x509_certificate(ours.ca.read_bytes()))
    assert [each.name for each in ours.members()[1]] == ["desk"] and ours.members()[0] == []


def test_an_invitation_is_one_word_for_one_key_until_it_expires(
    ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation = ours.invite("north", Role.CLIENT, 1.0)
    assert parse_invitation(f" {invitation}\n", "x") == invitation and invitation.fingerprint == ours.fingerprint
    own = request()
    assert identity_of(ours.enrol(invitation.token, own)).name == identity_of(ours.enrol(invitation.token, own)).name
    for token, asked in ((invitation.token, request()), ("guess", own), ("", own)):
        with pytest.raises(
            Unauthenticated, match="the invitation is unknown, has expired, or was used for another key"
        ):
            ours.enrol(token, asked)
    late = ours.invite("south", Role.CLIENT, -1.0)
    with pytest.raises(Unauthenticated):
        ours.enrol(late.token, own)
    replaced, newest = ours.invite("east", Role.CLIENT, 1.0), ours.invite("east", Role.CLIENT, 1.0)
    with pytest.raises(Unauthenticated):
        ours.enrol(replaced.token, own)
    assert identity_of(ours.enrol(newest.token, own)).name == "east"


def test_a_revoked_member_is_known_by_its_serials_and_cannot_renew(ours: Authority) -> None:
    north, south = enrolled(ours, "north"), enrolled(ours, "south")
    again = identity_of(ours.renew(north.serial, request()))
    assert (again.name, again.role) == ("north", Role.CLIENT) and ours.revoked() == frozenset()
    assert ours.revoke("north") == 2
    assert Authority(ours.ca.parent).revoked() == {north.serial, again.serial}
    for serial in (north.serial, "abc"):
        with pytest.raises(NotPermitted):
            ours.renew(serial, request())
    assert identity_of(ours.renew(south.serial, request())).name == "south"
    with pytest.raises(InvalidInput, match="no member 'west'"):
        ours.revoke("west")


def test_a_revoked_invitation_is_none(ours: Authority) -> None:
    invitation = ours.invite("north", Role.CLIENT, 1.0)
    assert ours.revoke("north") == 0
    with pytest.raises(Unauthenticated):
        ours.enrol(invitation.token, request())


def weak() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    asked = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, SHA256())
    return asked.public_bytes(serialization.Encoding.PEM)


def forged() -> bytes:
    """Returns a request that is signed for other bytes than it holds."""
    lines = request().splitlines()
    middle = bytearray(lines[2])
    middle[10] = ord("A") if middle[10] != ord("A") else ord("B")
    return b"\n".join([*lines[:2], bytes(middle), *lines[3:]])


@pytest.mark.parametrize(
    "asked", [b"", b"x", b"x" * 100_000, weak(), forged()], ids=["", "x", "long", "weak", "forged"]
)
def test_other_signing_requests_are_refused_and_use_up_nothing(ours: Authority, asked: bytes) -> None:
    invitation = ours.invite("north", Role.CLIENT, 1.0)
    with pytest.raises(InvalidInput):
        ours.enrol(invitation.token, asked)
    assert identity_of(ours.enrol(invitation.token, request())).name == "north"


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
def test_names_that_no_certificate_can_have_are_not_invited(ours: Authority, name: str) -> None:
    with pytest.raises(InvalidInput):
        ours.invite(name, Role.CLIENT, 1.0)


@pytest.mark.parametrize("word", ["", "x", "token.", "token.AAAA", ".AAAA", "token.%%%"])
def test_other_words_are_no_invitations(word: str) -> None:
    with pytest.raises(InvalidInput, match="not an invitation"):
        parse_invitation(word, "--invitation")


def test_a_folder_without_an_authority_or_with_damaged_files_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no authority: No such file"):
        Authority(tmp_path)
    ours = Authority.found(tmp_path / "authority")
    ours.records.write_text("{}")
    with pytest.raises(InvalidInput, match="not the members of an authority"):
        ours.revoked()
    ours.ca.write_text("x")
    with pytest.raises(InvalidInput, match="not a certificate"):
        Authority(tmp_path / "authority")


def test_certificates_last_as_long_as_the_documents_say() -> None:
    assert (authority.AUTHORITY_DAYS, authority.SERVER_DAYS, authority.MEMBER_DAYS) == (3650, 825, 90)
