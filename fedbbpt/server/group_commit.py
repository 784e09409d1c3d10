"""Group commit: what arrives within a moment is carried out together, in one transaction."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

GATHER_SECONDS = 0.01
"""How long an update or a join may wait for others to share its commit."""


class GroupCommit(Generic[T, R]):
    """Gathers items on the event loop and carries them out together."""

    def __init__(
        self, work: Callable[[Sequence[T]], Sequence[R | Exception]], enough: Callable[[], int | None] = lambda: None
    ) -> None:
        """
        Args:
            work: Carries items out, and returns the result of each, or its error. An error that it raises is that of
                all items.
            enough: Returns with how many items nothing is gained by waiting for more; None if that is unknown.
        """
        self._work, self._enough = work, enough
        self._arrived: list[tuple[T, Callable[[R | Exception], None]]] = []
        self._gathering: asyncio.TimerHandle | None = None

    async def put(self, item: T) -> R:
        """Returns the item's result, once it was carried out with those that arrived with it. Raises its error."""
        waiting: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        def answer(result: R | Exception) -> None:
            if waiting.done():
                return  # the call was cancelled
            if isinstance(result, Exception):
                waiting.set_exception(result)
            else:
                waiting.set_result(result)

        self.add(item, answer)
        return await waiting

    def add(self, item: T, answer: Callable[[R | Exception], None]) -> None:
        """Carries an item out with those that arrive with it, and then calls `answer` with its result or its error."""
        self._arrived.append((item, answer))
        enough = self._enough()
        if enough is not None and len(self._arrived) >= enough:
            self._carry_out()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._carry_out)

    def _carry_out(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        arrived, self._arrived, self._gathering = self._arrived, [], None
        results: Sequence[R | Exception]
        try:
            results = self._work([item for item, _ in arrived])
        except Exception as error:
            results = [error] * len(arrived)
        for (_, answer), result in zip(arrived, results, strict=True):
            answer(result)
