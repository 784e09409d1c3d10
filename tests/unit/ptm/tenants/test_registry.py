"""Tenants are identified by their tokens and certificates."""

import pytest

from fedbbpt.errors import InvalidInput, Unauthenticated
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

BOTH = (["Bearer bela's token"], ["other.example.org", "bela.example.org"])


@pytest.mark.parametrize(
    ("shown", "certificate", "name"),
    [
        (["Bearer anna's token"], [], "anna"),
        (["bearer anna's token"], [CLINIC], "anna"),
        (*BOTH, "bela"),
        ([], [CLINIC], "clinic"),
    ],
)
def test_credentials_identify_their_tenant(shown: list[str], certificate: list[str], name: str) -> None:
    assert TENANTS.identify(shown, certificate).name == name


@pytest.mark.parametrize(
    ("shown", "certificate"),
    [
        ([], []),
        (["Bearer guess"], []),
        (["Bearer guess"], [CLINIC]),
        (["anna's token"], []),
        (["Basic anna's token"], []),
        (["Bearer \ud800"], []),
        ([f"Bearer {ANNA}"], []),
        (["Bearer anna's token", "Bearer anna's token"], []),
        (["Bearer bela's token"], []),
        (["Bearer bela's token"], [CLINIC]),
        ([], ["bela.example.org"]),
    ],
)
def test_other_credentials_are_rejected(shown: list[str], certificate: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        TENANTS.identify(shown, certificate)


def test_certificate_of_two_tenants_is_rejected() -> None:
    tenants = Tenants([*REGISTERED, RegisteredTenant(Tenant(name="dora"), certificate="dora.example.org")])
    with pytest.raises(Unauthenticated, match="two tenants"):
        tenants.identify([], [CLINIC, "dora.example.org"])


def test_registries_of_tokens_and_of_anyone_identify_their_tenants() -> None:
    known = Tenants.of_tokens(["anna's token", "bela's token", "anna's token"])
    assert {tenant.name for tenant in known} == {ANNA[:8], BELA[:8]}
    assert known.identify(["Bearer bela's token"], []).name == BELA[:8]
    agreed = Tenants.of_tokens(["bela's token"], Tenant(name="", label_tokens=9))
    assert list(agreed) == [Tenant(name=BELA[:8], label_tokens=9)]
    with pytest.raises(Unauthenticated):
        known.identify([], [])
    with pytest.raises(InvalidInput, match="no token"):
        Tenants.of_tokens([])
    anyone = Tenants.anyone()
    assert anyone.identify([], []) == anyone.identify(["Bearer some"], ["x.org"]) == Tenant(name="anyone")
