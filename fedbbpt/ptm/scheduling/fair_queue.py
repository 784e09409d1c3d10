"""A queue that is fair to tenants: deficit round robin (Shreedhar and Varghese 1995), counted in tokens.

While several tenants have work, each gets the same number of tokens computed, regardless of the sizes of its items,
so a tenant with a long job does not delay others. Knows no clock and no threads.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fedbbpt.errors import Overloaded

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of work with their tokens; first in, first out for each tenant. Not thread-safe."""

    def __init__(self, *, quantum: int, max_tokens: int) -> None:
        """Creates an empty queue.

        Args:
            quantum: Tokens that a tenant earns each time it is its turn.
            max_tokens: Tokens that may wait for each tenant.
        """
        self._quantum, self._max_tokens = quantum, max_tokens
        self._waiting: dict[str, deque[tuple[int, T]]] = {}
        self._earned: dict[str, int] = {}
        self._turns: deque[str] = deque()
        self._tokens: dict[str, int] = {}

    @property
    def tokens(self) -> int:
        """Tokens that wait, of all tenants."""
        return sum(self._tokens.values())

    def push(self, tenant: str, items: Sequence[tuple[int, T]]) -> None:
        """Adds all items, given as (tokens, item), or none.

        Raises Overloaded if too many tokens would wait; a tenant with nothing waiting may add any amount.
        """
        new, waiting = sum(tokens for tokens, _ in items), self._tokens.get(tenant, 0)
        if waiting and waiting + new > self._max_tokens:
            raise Overloaded(
                f"{waiting} tokens are waiting", where="queue", fix=f"try again; the limit is {self._max_tokens}"
            )
        if not items:
            return
        if tenant not in self._waiting:
            self._waiting[tenant], self._earned[tenant] = deque(), 0
            self._turns.append(tenant)
        self._waiting[tenant].extend(items)
        self._tokens[tenant] = waiting + new

    def pop(self) -> T | None:
        """Returns the next item, or None if nothing waits."""
        while self._turns:
            tenant = self._turns[0]
            tokens, item = self._waiting[tenant][0]
            if tokens <= self._earned[tenant]:
                self._waiting[tenant].popleft()
                self._earned[tenant] -= tokens
                self._tokens[tenant] -= tokens
                if not self._waiting[tenant]:
                    self._forget(tenant)
                return item
            self._earned[tenant] += self._quantum
            self._turns.rotate(-1)
        return None

    def drop(self, tenant: str, unwanted: Callable[[T], bool]) -> int:
        """Removes a tenant's items for which `unwanted` is true, and returns how many they were."""
        waiting = self._waiting.get(tenant, deque())
        wanted = deque(item for item in waiting if not unwanted(item[1]))
        dropped = len(waiting) - len(wanted)
        if dropped:
            self._waiting[tenant], self._tokens[tenant] = wanted, sum(tokens for tokens, _ in wanted)
            if not wanted:
                self._forget(tenant)
        return dropped

    def _forget(self, tenant: str) -> None:
        """Drops the tenant's earned tokens: a tenant without work saves nothing up."""
        self._turns.remove(tenant)
        del self._waiting[tenant], self._earned[tenant], self._tokens[tenant]
