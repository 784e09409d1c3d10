"""The card that a tenant sees."""

from dataclasses import replace

import pytest

from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.state import Quotas, TenantState
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Injection, ModelCard, PromptKind

TEXTS = replace(Fake().describe(), injections=frozenset(Injection))
IMAGES = replace(
    TEXTS,
    prompt_kinds=frozenset({PromptKind.IMAGE, PromptKind.LATENT, PromptKind.SOFT}),
    injections=frozenset({Injection.CLASS}),
)


def seen(card: ModelCard, tenant: Tenant, hidden_size: int = 64) -> ModelCard:
    return TenantState.create(tenant, card, hidden_size, Quotas()).card


@pytest.mark.parametrize("card", [TEXTS, IMAGES])
def test_prompts_in_the_class_texts_are_for_tenants_without_a_limit_of_label_tokens(card: ModelCard) -> None:
    """Kills: a budget of label tokens that candidates in the class texts evade."""
    for tenant in (Tenant(name="anna"), Tenant(name="anna", label_tokens=50)):
        limited = seen(card, tenant)
        assert Injection.CLASS not in limited.injections
        assert bool(limited.injections) == (PromptKind.LATENT in limited.prompt_kinds), "vectors need a place"
    assert seen(card, Tenant(name="anna", label_tokens="all")).injections == card.injections
    assert seen(card, Tenant(name="anna"), hidden_size=0).injections == card.injections
