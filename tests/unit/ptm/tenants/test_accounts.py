"""A tenant's account: reservations, prices, rates, label tokens, and its restoration from the audit log."""

from typing import Any

import pytest

from fedbbpt.errors import BudgetSpent, RateLimited
from fedbbpt.limits import MAX_TASKS
from fedbbpt.ptm.tenants.accounts import Account
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import UNLIMITED, Budget, Usage

LIMITED = Tenant(name="anna", max_queries=10, max_tokens=1000)
PAYING = Tenant(
    name="anna", currency="EUR", micros_per_query=20, micros_per_cached_query=5, micros_per_thousand_tokens=700
)


def test_settling_frees_the_unused_reservation() -> None:
    account = Account(LIMITED, None)
    reservation = account.reserve(8, 800, 0.0)
    assert account.budget() == Budget(2, 200)
    account.settle(reservation, "task", Usage(3, 120, 0.5))
    assert account.budget() == Budget(7, 880)
    assert account.usage == account.tasks["task"] == Usage(3, 120, 0.5)


def test_error_of_a_spent_budget_states_the_remaining_queries() -> None:
    account = Account(LIMITED, None)
    account.settle(account.reserve(4, 100, 0.0), "task", Usage(4, 100))
    open_call = account.reserve(3, 0, 0.0)
    with pytest.raises(BudgetSpent, match="4 queries where 3 of 10 are left, and 3 reserved by open calls"):
        account.reserve(4, 0, 0.0)
    with pytest.raises(BudgetSpent, match="901 tokens where 900 of 1000 are left"):
        account.reserve(1, 901, 0.0)
    assert account.budget() == Budget(3, 900), "a refused call reserves nothing"
    account.settle(open_call, "task", Usage())
    account.settle(account.reserve(6, 900, 0.0), "task", Usage(6, 900))
    with pytest.raises(BudgetSpent, match="1 queries where 0 of 10"):
        account.check(1, 0.0)


def test_reservation_can_be_settled_once_only() -> None:
    account = Account(LIMITED, None)
    reservation = account.reserve(8, 0, 0.0)
    account.reserve(2, 0, 0.0)
    account.settle(reservation, "task", Usage())
    with pytest.raises(KeyError):
        account.settle(reservation, "task", Usage())
    assert account.budget() == Budget(8, 1000)


def test_usage_costs_the_prices_of_the_tenant() -> None:
    account = Account(PAYING, None)
    usage = account.priced(Usage(10, 2500, cached_queries=4))
    assert usage.cost_micros == 6 * 20 + 4 * 5 + 1750
    account.settle(account.reserve(10, 2500, 0.0), "task", usage)
    assert account.usage.cost_micros == usage.cost_micros


def test_rate_admits_a_large_call_and_delays_the_next() -> None:
    account = Account(Tenant(name="anna", queries_per_second=10.0, burst_queries=20), None)
    account.settle(account.reserve(50, 0, 100.0), "task", Usage(50))
    with pytest.raises(RateLimited, match=r"more than 10 queries a second; try again in 3\.1 s") as raised:
        account.reserve(1, 0, 100.0)
    assert raised.value.seconds == pytest.approx(3.1)
    with pytest.raises(RateLimited, match=r"in 1\.1 s"):
        account.check(1, 102.0)
    account.settle(account.reserve(1, 0, 103.5), "task", Usage(1))
    assert account.usage == Usage(51)


def test_pause_earns_no_more_than_the_burst() -> None:
    account = Account(Tenant(name="anna", queries_per_second=10.0), None)
    account.settle(account.reserve(0, 0, 0.0), "task", Usage())
    for _ in range(10):
        account.reserve(1, 0, 1e6)
    with pytest.raises(RateLimited):
        account.reserve(1, 0, 1e6)


def test_unused_reservation_does_not_delay_the_next_call() -> None:
    account = Account(Tenant(name="anna", queries_per_second=0.1), None)
    account.settle(account.reserve(1000, 0, 0.0), "task", Usage(cached_queries=0))
    account.reserve(1, 0, 0.0)
    with pytest.raises(RateLimited):
        account.reserve(1, 0, 0.0)


def test_label_token_counts_once() -> None:
    account = Account(Tenant(name="anna"), 4)
    first = account.spend_label_tokens(frozenset({"yes", "no"}))
    assert not account.spend_label_tokens(frozenset({"yes", "no"}))
    assert account.budget().label_tokens == 2
    what = "3 new label tokens where 2 of 4 are left, in a task with 4 of them; .* label_tokens of the tenant 'anna'"
    with pytest.raises(BudgetSpent, match=what):
        account.spend_label_tokens(frozenset({"yes", "a", "b", "c"}))
    assert account.budget().label_tokens == 2
    assert not first & account.spend_label_tokens(frozenset({"yes", "a", "b"}))
    account.refund_label_tokens(first)
    assert account.spend_label_tokens(frozenset({"yes", "no", "a"})) == first


def test_label_tokens_are_kept_as_digests() -> None:
    (shown,) = Account(Tenant(name="anna"), None).spend_label_tokens(frozenset({"diagnosis"}))
    assert "diagnosis" not in shown


def test_tenant_without_limits_has_an_unlimited_budget() -> None:
    account = Account(Tenant(name="anna"), None)
    account.spend_label_tokens(frozenset(map(str, range(1000))))
    account.settle(account.reserve(10**12, 10**15, 0.0), "task", Usage(10**12, 10**15))
    account.reserve(10**12, 10**15, 0.0)
    assert account.budget() == UNLIMITED


def test_audit_records_restore_an_account() -> None:
    tenant = Tenant(name="anna", max_queries=100, currency="EUR", micros_per_query=20)
    account = Account(tenant, 5)
    shown = account.spend_label_tokens(frozenset({"yes", "no"}))
    usage = account.priced(Usage(9, 90, cached_queries=2))
    account.settle(account.reserve(9, 90, 0.0), "task", usage)
    records: list[dict[str, Any]] = [
        {"kind": "task", "label_tokens": sorted(shown)},
        {"kind": "examples", "count": 3},
        {
            "kind": "score",
            "task": "task",
            "queries": usage.queries,
            "tokens": usage.tokens,
            "cached_queries": usage.cached_queries,
            "cost_micros": usage.cost_micros,
        },
    ]
    restored = Account(tenant.model_copy(update={"micros_per_query": 99}), 5)
    for record in records:
        restored.restore(record)
    assert (restored.usage, restored.tasks, restored.budget()) == (account.usage, account.tasks, account.budget())
    assert not restored.spend_label_tokens(frozenset({"yes", "no"}))


def test_budget_below_usage_leaves_nothing() -> None:
    account = Account(Tenant(name="anna", max_queries=5), None)
    account.restore({"kind": "score", "task": "t", "queries": 9, "tokens": 0, "cached_queries": 0, "cost_micros": 0})
    assert account.budget() == Budget(0)
    with pytest.raises(BudgetSpent):
        account.reserve(1, 0, 0.0)


def test_usage_of_long_unused_tasks_is_added_up() -> None:
    account = Account(Tenant(name="anna"), None)
    for index in range(MAX_TASKS + 3):
        account.settle(account.reserve(1, 0, 0.0), f"task-{index}", Usage(1))
        account.settle(account.reserve(1, 0, 0.0), "task-0", Usage(1))
    assert "task-0" in account.tasks and "task-3" not in account.tasks and "task-4" in account.tasks
    assert account.tasks[""] == Usage(3)
    assert sum(account.tasks.values(), Usage()) == account.usage
