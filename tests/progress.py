"""A display that keeps what it is told, for tests of what reports progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedbbpt.host.progress import Advance


class Kept:
    """Implements `host.progress.Display`."""

    def __init__(self) -> None:
        self.works: list[tuple[str, float | None, str]] = []
        """What was begun, how much there was to do, and its unit."""
        self.done: dict[str, float] = {}
        """How much was done of each work."""

    @contextmanager
    def work(self, what: str, total: float | None, unit: str) -> Iterator[Advance]:
        """Keeps the work."""
        self.works.append((what, total, unit))
        self.done.setdefault(what, 0.0)

        def advance(amount: float) -> None:
            self.done[what] += amount

        yield advance
