"""Lists of revoked certificates: what an authority writes, and which lists a service refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.identity import issuing, revocation
from fedbbpt.identity.authority import Authority
from fedbbpt.identity.certificates import identity_of
from fedbbpt.identity.revocation import read_revoked
from fedbbpt.identity.roles import Role


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.found(tmp_path / "authority")


def enrolled(ours: Authority, name: str) -> str:
    request = issuing.signing_request(issuing.new_key())
    return identity_of(ours.enrol(ours.invite(name, Role.CLIENT, 1.0).token, request)).serial


def test_the_list_has_the_revoked_certificates_and_no_others(ours: Authority) -> None:
    """Kills: a list that is written before the certificate is marked, or only when somebody is revoked."""
    crl = ours.ca.parent / "revoked.pem"
    assert read_revoked(crl, ours.ca) == frozenset()
    north, south = enrolled(ours, "north"), enrolled(ours, "south")
    ours.revoke("north")
    assert read_revoked(crl, ours.ca) == {north} == ours.revoked()
    ours.revoke("south")
    assert read_revoked(crl, ours.ca) == {north, south}


def test_an_authority_of_before_gets_a_list(ours: Authority) -> None:
    serial = enrolled(ours, "north")
    ours.revoke("north")
    crl = ours.ca.parent / "revoked.pem"
    crl.unlink()
    assert read_revoked(crl, Authority.found(crl.parent).ca) == {serial}


def test_lists_that_say_nothing_are_refused(ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a list that anybody could have written, and one that is out of date."""
    crl, other = ours.ca.parent / "revoked.pem", Authority.found(tmp_path / "other")
    with pytest.raises(InvalidInput, match="not signed by an authority"):
        read_revoked(crl, other.ca)
    with pytest.raises(InvalidInput, match="not a list of revoked certificates"):
        read_revoked(ours.ca, ours.ca)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_revoked(tmp_path / "missing.pem", ours.ca)
    monkeypatch.setattr(revocation, "LIST_DAYS", 0.0)
    ours.invite("north", Role.CLIENT, 1.0)
    ours.revoke("north")
    with pytest.raises(InvalidInput, match=f"has expired on {datetime.now(UTC) - timedelta(seconds=60):%Y}"):
        read_revoked(crl, ours.ca)
