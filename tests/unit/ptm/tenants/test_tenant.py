"""The limits that follow from a tenant's settings."""

from fedbbpt.ptm.tenants.tenant import IN_PROCESS, Tenant


def test_label_tokens_stay_below_a_quarter_of_the_hidden_size() -> None:
    tenant = Tenant(name="anna")
    assert tenant.max_label_tokens(768) == 191
    assert tenant.max_label_tokens(4) == 2  # a task has two classes
    assert tenant.max_label_tokens(0) is None
    assert Tenant(name="anna", label_tokens=7).max_label_tokens(768) == 7
    assert IN_PROCESS.max_label_tokens(768) is None
