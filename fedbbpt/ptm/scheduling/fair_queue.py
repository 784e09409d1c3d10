"""Who is served next: deficit round robin over tenants (Shreedhar and Varghese 1995), counted in tokens.

A tenant with a long job does not keep others waiting: while several have work, each gets the same number of tokens
computed, whatever the sizes of their pieces. No clock, no threads.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fedbbpt.errors import Overloaded

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Pieces of work with their tokens, first in, first out for each tenant."""

    def __init__(self, *, quantum: int, max_tokens: int) -> None:
        """`quantum`: tokens that a tenant earns each time it is its turn. `max_tokens`: of each tenant, waiting."""
        self._quantum, self._max_tokens = quantum, max_tokens
        self._waiting: dict[str, deque[tuple[int, T]]] = {}
        self._earned: dict[str, int] = {}
        self._turns: deque[str] = deque()
        self._tokens: dict[str, int] = {}

    @property
    def tokens(self) -> int:
        """All that wait."""
        return sum(self._tokens.values())

    def push(self, tenant: str, pieces: Sequence[tuple[int, T]]) -> None:
        """All of them or none. Raises Overloaded where too much waits already; with nothing waiting, any amount may."""
        new, waiting = sum(tokens for tokens, _ in pieces), self._tokens.get(tenant, 0)
        if waiting and waiting + new > self._max_tokens:
            raise Overloaded(
                f"{waiting} tokens are waiting", where="queue", fix=f"try again; {self._max_tokens} may wait"
            )
        if not pieces:
            return
        if tenant not in self._waiting:
            self._waiting[tenant], self._earned[tenant] = deque(), 0
            self._turns.append(tenant)
        self._waiting[tenant].extend(pieces)
        self._tokens[tenant] = waiting + new

    def pop(self) -> T | None:
        """The next piece, None where nothing waits."""
        while self._turns:
            tenant = self._turns[0]
            tokens, piece = self._waiting[tenant][0]
            if tokens <= self._earned[tenant]:
                self._waiting[tenant].popleft()
                self._earned[tenant] -= tokens
                self._tokens[tenant] -= tokens
                if not self._waiting[tenant]:
                    self._forget(tenant)
                return piece
            self._earned[tenant] += self._quantum
            self._turns.rotate(-1)
        return None

    def drop(self, tenant: str, unwanted: Callable[[T], bool]) -> int:
        """Takes out what nobody waits for any more; returns how many pieces that were."""
        waiting = self._waiting.get(tenant, deque())
        kept = deque(piece for piece in waiting if not unwanted(piece[1]))
        dropped = len(waiting) - len(kept)
        if dropped:
            self._waiting[tenant], self._tokens[tenant] = kept, sum(tokens for tokens, _ in kept)
            if not kept:
                self._forget(tenant)
        return dropped

    def _forget(self, tenant: str) -> None:
        """Who has nothing to do saves nothing up."""
        self._turns.remove(tenant)
        del self._waiting[tenant], self._earned[tenant], self._tokens[tenant]
