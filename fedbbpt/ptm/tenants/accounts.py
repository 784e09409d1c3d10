"""One tenant's usage and budget. A call reserves its maximum before the work and settles afterwards.

A reservation counts as used until it is settled, so concurrent calls cannot spend the same budget. Callers pass the
time.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedbbpt.errors import BudgetSpent, RateLimited
from fedbbpt.limits import MAX_LABEL_TOKENS, MAX_TASKS
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Budget, Usage

DIGEST_DIGITS = 16
"""Hexadecimal digits of a label token's digest."""
ANOTHER_AGREEMENT = "another agreement with the provider"


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """The most that a call may use. It must be settled exactly once."""

    queries: int
    tokens: int


class Account:
    """One tenant's usage and budget. Not thread-safe. Times are in seconds of a monotonic clock."""

    def __init__(self, tenant: Tenant, max_label_tokens: int | None) -> None:
        """`max_label_tokens` is what `Tenant.max_label_tokens` returns for the model."""
        self.usage = Usage()
        self.tasks: dict[str, Usage] = {}
        """Usage by task id, least recently used first."""
        self._tenant, self._max_label_tokens = tenant, max_label_tokens
        self._label_tokens: set[str] = set()  # digests
        self._open: set[Reservation] = set()
        self._bucket = _Bucket(tenant.queries_per_second, tenant.burst)

    def adopt(self, new: "Account") -> None:
        """Takes over the limits of another account of the same tenant, and keeps its own usage."""
        rates = [(tenant.queries_per_second, tenant.burst) for tenant in (self._tenant, new._tenant)]
        if rates[0] != rates[1]:
            self._bucket = new._bucket
        self._tenant, self._max_label_tokens = new._tenant, new._max_label_tokens

    def spend_label_tokens(self, columns: frozenset[str]) -> frozenset[str]:
        """Counts the label tokens of a task.

        Args:
            columns: The names of all classes' columns that `Backend.columns` returns.

        Returns:
            The digests of the tokens that are new for this tenant, for the audit log.

        Raises:
            BudgetSpent: More are new than are left. Nothing is counted then.
        """
        new = frozenset(map(_digest, columns)) - self._label_tokens
        left = self.budget().label_tokens
        if left is None:
            left = MAX_LABEL_TOKENS - len(self._label_tokens)
        if len(new) > max(0, left):
            total = self._max_label_tokens or MAX_LABEL_TOKENS
            what = (
                f"{len(new)} new label tokens where {left} of {total} are left, in a task with {len(columns)} of them"
            )
            fix = "fewer or shorter classes and columns, those of an earlier task, or ask the provider to raise "
            raise BudgetSpent(what, where="label_tokens", fix=f"{fix}label_tokens of the tenant {self._tenant.name!r}")
        self._label_tokens |= new
        return new

    def refund_label_tokens(self, spent: frozenset[str]) -> None:
        """Takes back what `spend_label_tokens` returned, if the task was not registered after all."""
        self._label_tokens -= spent

    def check(self, queries: int, now: float) -> None:
        """Raises what `reserve` would raise for a call without tokens. Cheap, so it comes before a call is planned."""
        left = self.budget()
        self._check("queries", queries, left.queries, self._tenant.max_queries)
        self._bucket.check(now)

    def reserve(self, queries: int, tokens: int, now: float) -> Reservation:
        """Reserves queries and tokens for a call.

        A call larger than the rate's burst is admitted as soon as the rate allows one query; later calls wait longer.

        Raises:
            BudgetSpent: More is wanted than is left. Nothing is reserved then.
            RateLimited: The call comes too early. Nothing is reserved then.
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
        others = f", and {reserved} reserved by open calls" if reserved else ""
        what = f"{wanted} {kind} where {left} of {total} are left{others}"
        raise BudgetSpent(what, where=f"max_{kind}", fix=f"a smaller call, or {ANOTHER_AGREEMENT}")

    def priced(self, usage: Usage) -> Usage:
        """Returns the usage with its cost at the tenant's prices."""
        cost = self._tenant.price.cost_micros(usage)
        return replace(usage, cost_micros=cost) if cost != usage.cost_micros else usage

    def settle(self, reservation: Reservation, task_id: str, usage: Usage) -> None:
        """Counts a call's usage, and frees the rest of its reservation."""
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
        """Returns what may still be reserved, and how many new label tokens tasks may still have."""
        queries = self.usage.queries + sum(reservation.queries for reservation in self._open)
        tokens = self.usage.tokens + sum(reservation.tokens for reservation in self._open)
        return Budget(
            _left(self._tenant.max_queries, queries),
            _left(self._tenant.max_tokens, tokens),
            _left(self._max_label_tokens, len(self._label_tokens)),
        )

    def restore(self, record: Mapping[str, Any]) -> None:
        """Counts a record of the audit log: the usage and cost in a "score", or the label tokens in a "task"."""
        if record["kind"] == "score":
            self._count(record["task"], usage_of(record))
        elif record["kind"] == "task":
            self._label_tokens |= frozenset(record["label_tokens"])


def usage_of(record: Mapping[str, Any]) -> Usage:
    """Returns the usage in an audit record of kind "score", without times."""
    return Usage(**{name: record[name] for name in ("queries", "tokens", "cached_queries", "cost_micros")})


def _digest(column: str) -> str:
    return hashlib.sha256(column.encode(errors="surrogatepass")).hexdigest()[:DIGEST_DIGITS]


def _left(total: int | None, used: int) -> int | None:
    """Returns the rest of a budget; 0 if the budget was lowered below the usage."""
    return None if total is None else max(0, total - used)


class _Bucket:
    """A token bucket that may go into debt: it admits a call of any size while it is not empty.

    `_earned` and `_taken` are separate, and `_taken` is an integer, so giving back leaves no rounding error.
    """

    def __init__(self, per_second: float | None, size: float) -> None:
        self._per_second, self._size = per_second, size
        self._earned, self._taken = size, 0
        self._at: float | None = None

    def check(self, now: float) -> None:
        """Raises RateLimited if the bucket is empty."""
        if self._per_second is None:
            return
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._earned = min(self._earned + elapsed * self._per_second, self._taken + self._size)
        self._at = now
        level = self._earned - self._taken
        if level <= 0:
            what, seconds = f"more than {self._per_second:g} queries a second", (1 - level) / self._per_second
            fix = f"try again in {seconds:.1f} s"
            raise RateLimited(what, where="queries_per_second", fix=fix, seconds=seconds)

    def take(self, queries: int, now: float) -> None:
        """Takes tokens out. Raises RateLimited if the bucket is empty."""
        self.check(now)
        self._taken += queries

    def give_back(self, queries: int) -> None:
        """Puts back tokens that were taken and not used."""
        self._taken -= queries
