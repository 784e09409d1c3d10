"""Laws of a tenant's account, for any order of calls that begin, end, are refused or are cancelled."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedbbpt.errors import BudgetSpent, RateLimited
from fedbbpt.ptm.tenants.accounts import Account, Reservation
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Usage

RATE, BURST = 3.0, 7
TENANT = Tenant(
    name="anna",
    max_queries=60,
    max_tokens=400,
    queries_per_second=RATE,
    burst_queries=BURST,
    currency="EUR",
    micros_per_query=7,
    micros_per_cached_query=2,
    micros_per_thousand_tokens=900,
)


class Calls(RuleBasedStateMachine):
    """Kills: reservations that do not count, refunds that are lost or given twice, a refusal that reserves, charging
    for the reservation instead of the usage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(TENANT, 5)
        self.open: list[Reservation] = []
        self.settled: list[Usage] = []
        self.shown: set[str] = set()
        self.now = 0.0

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(queries=st.integers(1, 30), tokens=st.integers(0, 150))
    def begin(self, queries: int, tokens: int) -> None:
        before = self.account.budget()
        assert before.queries is not None and before.tokens is not None
        fits = queries <= before.queries and tokens <= before.tokens
        try:
            self.open.append(self.account.reserve(queries, tokens, self.now))
        except BudgetSpent:
            assert not fits and self.account.budget() == before
        except RateLimited:
            assert fits and self.account.budget() == before
        else:
            assert fits

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        reservation = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        queries = data.draw(st.integers(0, reservation.queries))
        used = Usage(
            queries,
            data.draw(st.integers(0, reservation.tokens)),
            cached_queries=data.draw(st.integers(0, queries)),
        )
        used = self.account.priced(used)
        self.account.settle(reservation, data.draw(st.sampled_from("abc")), used)
        self.settled.append(used)

    @rule(columns=st.frozensets(st.sampled_from("abcdefgh"), min_size=2, max_size=4))
    def show(self, columns: frozenset[str]) -> None:
        try:
            self.account.spend_label_tokens(columns)
            self.shown |= columns
        except BudgetSpent:
            assert len(self.shown | columns) > 5

    @invariant()
    def books_balance(self) -> None:
        used, budget = sum(self.settled, Usage()), self.account.budget()
        assert self.account.usage == used == sum(self.account.tasks.values(), Usage())
        assert budget.queries == 60 - used.queries - sum(reservation.queries for reservation in self.open) >= 0
        assert budget.tokens == 400 - used.tokens - sum(reservation.tokens for reservation in self.open) >= 0
        assert budget.label_tokens == 5 - len(self.shown) >= 0


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=40)


@given(calls=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30), st.integers(0, 30)), max_size=20))
def test_no_interval_has_more_queries_than_burst_and_rate(calls: list[tuple[float, int, int]]) -> None:
    """The last call may exceed them. Kills: a bucket that overflows when idle, forgets debt or refunds used queries."""
    account = Account(Tenant(name="anna", queries_per_second=RATE, burst_queries=BURST), None)
    admitted: list[tuple[float, int]] = []
    now = 0.0
    for seconds, queries, spare in calls:
        now += seconds
        with suppress(RateLimited):
            account.settle(account.reserve(queries + spare, 0, now), "", Usage(queries))
            for index, (start, _) in enumerate(admitted):
                assert sum(before for _, before in admitted[index:]) < BURST + RATE * (now - start) + 1e-6
            admitted.append((now, queries))


@given(
    level=st.lists(st.tuples(st.integers(1, 9), st.floats(0, 3)), max_size=5),
    queries=st.integers(1, 10**6),
    later=st.floats(0, 10),
)
def test_call_that_uses_nothing_changes_nothing(level: list[tuple[int, float]], queries: int, later: float) -> None:
    """Kills: floating-point debts, a refund that is clipped at the current burst."""
    accounts = [Account(Tenant(name="anna", queries_per_second=1 / 3, burst_queries=9), None) for _ in range(2)]
    now = 0.0

    def take(account: Account, queries: int) -> str:
        try:
            account.settle(account.reserve(queries, 0, now), "", Usage(queries))
        except RateLimited as error:
            return error.fix
        return ""

    for taken, seconds in level:
        assert len({take(account, taken) for account in accounts}) == 1
        now += seconds
    plain, disturbed = accounts
    with suppress(RateLimited):
        plain.check(1, now)
        reservation = disturbed.reserve(queries, 0, now)
        now += later
        for account in accounts:
            with suppress(RateLimited):
                account.check(1, now)
        disturbed.settle(reservation, "", Usage())
    for _ in range(20):
        assert take(plain, 1) == take(disturbed, 1)
