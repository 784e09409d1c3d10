"""Tenants are identified by their tokens and certificates."""

import pytest

from fedbbpt.errors import InvalidInput, Unauthenticated
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.ptm.tenants.registry import RegisteredTenant, Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from tests.unit.ptm.tenants.test_tenants_file import ANNA, BELA

CLINIC = "clinic.example.org"
REGISTERED = [
    RegisteredTenant(Tenant(name="anna"), ANNA),
    RegisteredTenant(Tenant(name="bela"), BELA, "bela.example.org"),
    RegisteredTenant(Tenant(name="clinic"), certificate=CLINIC),
]
TENANTS = Tenants(REGISTERED)

BOTH = ("bela's token", ["other.example.org", "bela.example.org"])


@pytest.mark.parametrize(
    ("shown", "certificate", "name"),
    [
        ("anna's token", [], "anna"),
        ("anna's token", [CLINIC], "anna"),
        (*BOTH, "bela"),
        (None, [CLINIC], "clinic"),
    ],
)
def test_credentials_identify_their_tenant(shown: str | None, certificate: list[str], name: str) -> None:
    assert TENANTS.identify(shown and token_digest(shown), certificate).name == name


@pytest.mark.parametrize(
    ("shown", "certificate"),
    [
        (None, []),
        ("guess", []),
        ("guess", [CLINIC]),
        (ANNA, []),
        ("bela's token", []),
        ("bela's token", [CLINIC]),
        (None, ["bela.example.org"]),
    ],
)
def test_other_credentials_are_rejected(shown: str | None, certificate: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        TENANTS.identify(shown and token_digest(shown), certificate)


def test_certificate_of_two_tenants_is_rejected() -> None:
    tenants = Tenants([*REGISTERED, RegisteredTenant(Tenant(name="dora"), certificate="dora.example.org")])
    with pytest.raises(Unauthenticated, match="two tenants"):
        tenants.identify(None, [CLINIC, "dora.example.org"])


def test_registries_of_tokens_and_of_anyone_identify_their_tenants() -> None:
    renewed = Token("anna", Role.CLIENT, token_digest("anna's next token"))
    known = Tenants.of_tokens([Token("anna", Role.CLIENT, ANNA), renewed, Token("bela", Role.OBSERVER, BELA)])
    assert [(tenant.name, tenant.role) for tenant in known] == [("anna", Role.CLIENT), ("bela", Role.OBSERVER)]
    assert known.identify(token_digest("anna's token"), []) == known.identify(token_digest("anna's next token"), [])
    agreed = Tenants.of_tokens([Token("bela", Role.CLIENT, BELA)], Tenant(name="", label_tokens=9))
    assert list(agreed) == [Tenant(name="bela", label_tokens=9)]
    with pytest.raises(Unauthenticated):
        known.identify(None, [])
    with pytest.raises(Unauthenticated):
        Tenants.of_tokens([]).identify(ANNA, [])
    with pytest.raises(InvalidInput, match="two tenants have the name 'anna'"):
        Tenants.of_tokens([Token("anna", Role.CLIENT, ANNA), Token("anna", Role.OBSERVER, BELA)])
    anyone = Tenants.anyone()
    assert anyone.identify(None, []) == anyone.identify(ANNA, ["x.org"]) == Tenant(name="anyone")
