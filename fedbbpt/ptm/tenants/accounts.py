"""What one tenant has used, and what is left to it: reserved before the work, settled after it. Knows no clock.

A reservation counts as used until it is settled, so that calls that run side by side cannot spend the same budget.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedbbpt.errors import BudgetSpent, RateLimited
from fedbbpt.ptm.tenants.registry import Tenant
from fedbbpt.types import Budget, Usage

MAX_TASKS = 1024
"""Tasks whose usage is kept apart; that of those longest unused goes under "" together."""
MAX_LABEL_TOKENS = 2**20
"""Where there is no budget of them: each is remembered, and on record."""
DIGEST_DIGITS = 16
ANOTHER_AGREEMENT = "another agreement with the provider"


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """What a call may use, at most. To be settled once."""

    queries: int
    tokens: int


class Account:
    """Not safe for several threads at once. `max_label_tokens` as of `Tenant.max_label_tokens`; times in seconds."""

    def __init__(self, tenant: Tenant, max_label_tokens: int | None) -> None:
        self.usage = Usage()
        self.tasks: dict[str, Usage] = {}  # least recently used first
        self._tenant, self._max_label_tokens = tenant, max_label_tokens
        self._shown: set[str] = set()
        self._open: set[Reservation] = set()
        self._bucket = _Bucket(tenant.queries_per_second, tenant.burst)

    def show(self, columns: frozenset[str]) -> frozenset[str]:
        """Counts the columns that a task shows; those that are new, as digests, which is what the audit log keeps.

        Raises BudgetSpent, and counts nothing then.
        """
        new = frozenset(map(_digest, columns)) - self._shown
        left = self.budget().label_tokens
        if left is None:
            left = MAX_LABEL_TOKENS - len(self._shown)
        if len(new) > max(0, left):
            what = f"{len(new)} new label tokens where {left} of {self._max_label_tokens or MAX_LABEL_TOKENS} are left"
            raise BudgetSpent(what, where="label_tokens", fix=f"label tokens of earlier tasks, or {ANOTHER_AGREEMENT}")
        self._shown |= new
        return new

    def hide(self, shown: frozenset[str]) -> None:
        """Takes back what `show` returned, where the task was not registered after all."""
        self._shown -= shown

    def check(self, queries: int, now: float) -> None:
        """Raises what `reserve` would raise for a call of no tokens; for before the work of planning one."""
        left = self.budget()
        self._check("queries", queries, left.queries, self._tenant.max_queries)
        self._bucket.check(now)

    def reserve(self, queries: int, tokens: int, now: float) -> Reservation:
        """Raises BudgetSpent, RateLimited, and reserves nothing then.

        A call of more than a second's queries goes through whenever the rate has room for one, and those after it wait.
        """
        left = self.budget()
        self._check("queries", queries, left.queries, self._tenant.max_queries)
        self._check("tokens", tokens, left.tokens, self._tenant.max_tokens)
        self._bucket.take(queries, now)
        reservation = Reservation(queries, tokens)
        self._open.add(reservation)
        return reservation

    def _check(self, kind: str, wanted: int, left: int | None, total: int | None) -> None:
        if left is None or wanted <= left:
            return
        reserved = sum(getattr(reservation, kind) for reservation in self._open)
        beside = f", and {reserved} reserved by calls at work" if reserved else ""
        what = f"{wanted} {kind} where {left} of {total} are left{beside}"
        raise BudgetSpent(what, where=f"max_{kind}", fix=f"a smaller call, or {ANOTHER_AGREEMENT}")

    def priced(self, usage: Usage) -> Usage:
        """With its cost."""
        return replace(usage, cost_micros=self._tenant.price.cost_micros(usage))

    def settle(self, reservation: Reservation, task_id: str, usage: Usage) -> None:
        """Counts what was used, which is at most what was reserved; the rest is free again."""
        assert usage.queries <= reservation.queries and usage.tokens <= reservation.tokens, "more than was reserved"
        self._open.remove(reservation)
        self._bucket.give_back(reservation.queries - usage.queries)
        self._count(task_id, usage)

    def _count(self, task_id: str, usage: Usage) -> None:
        self.usage += usage
        self.tasks[task_id] = self.tasks.pop(task_id, Usage()) + usage
        while len(self.tasks) - ("" in self.tasks) > MAX_TASKS:
            oldest = next(name for name in self.tasks if name)
            self.tasks[""] = self.tasks.get("", Usage()) + self.tasks.pop(oldest)

    def budget(self) -> Budget:
        """What may still be reserved, or shown."""
        queries = self.usage.queries + sum(reservation.queries for reservation in self._open)
        tokens = self.usage.tokens + sum(reservation.tokens for reservation in self._open)
        return Budget(
            _left(self._tenant.max_queries, queries),
            _left(self._tenant.max_tokens, tokens),
            _left(self._max_label_tokens, len(self._shown)),
        )

    def restore(self, record: Mapping[str, Any]) -> None:
        """Counts what a record of the audit log says: kind "score", usage at its price of then, or "task"."""
        if record["kind"] == "score":
            self._count(record["task"], usage_of(record))
        elif record["kind"] == "task":
            self._shown |= frozenset(record["label_tokens"])


def usage_of(record: Mapping[str, Any]) -> Usage:
    """Of a record of kind "score", without times."""
    return Usage(**{name: record[name] for name in ("queries", "tokens", "cached_queries", "cost_micros")})


def _digest(column: str) -> str:
    return hashlib.sha256(column.encode(errors="surrogatepass")).hexdigest()[:DIGEST_DIGITS]


def _left(total: int | None, used: int) -> int | None:
    """Not below 0 where the budget was made smaller than what is used already."""
    return None if total is None else max(0, total - used)


class _Bucket:
    """A token bucket that may go into debt: it lets anything through while it is not empty.

    `earned` and `taken` are kept apart, and `taken` is whole: what is given back leaves no trace of rounding.
    """

    def __init__(self, per_second: float | None, size: float) -> None:
        self._per_second, self._size = per_second, size
        self._earned, self._taken = size, 0
        self._at: float | None = None

    def check(self, now: float) -> None:
        """Raises RateLimited where it is empty."""
        if self._per_second is None:
            return
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._earned = min(self._earned + elapsed * self._per_second, self._taken + self._size)
        self._at = now
        level = self._earned - self._taken
        if level <= 0:
            what, seconds = f"faster than {self._per_second:g} queries a second", (1 - level) / self._per_second
            fix = f"try again in {seconds:.1f} s"
            raise RateLimited(what, where="queries_per_second", fix=fix, seconds=seconds)

    def take(self, queries: int, now: float) -> None:
        """Raises RateLimited."""
        self.check(now)
        self._taken += queries

    def give_back(self, queries: int) -> None:
        self._taken -= queries
