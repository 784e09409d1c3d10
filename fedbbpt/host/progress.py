"""The progress of long work: the library says what is done, and a command decides how to show it, as with logging.

    with progress("registering the examples", len(clients), "clients") as advance:
        for client in clients:
            ...
            advance(1)

Without a command nobody listens, and it costs nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeAlias

Advance: TypeAlias = Callable[[float], None]
"""Receives how much more is done."""


class Display(Protocol):
    """Shows the progress of work."""

    def work(self, what: str, total: float | None, unit: str) -> AbstractContextManager[Advance]:
        """Returns a context in which the work is done, and whose value receives how much more is done.

        Args:
            what: What is done, such as "registering the examples".
            total: How much there is to do; None if that is unknown.
            unit: What is counted, in the plural; "bytes" is shown as kB and MB.
        """
        ...


class _Nobody:
    """Shows nothing."""

    def work(self, what: str, total: float | None, unit: str) -> AbstractContextManager[Advance]:
        return nullcontext(lambda amount: None)


_display: Display = _Nobody()


def progress(what: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Advance]:
    """Returns the context of some work, as `Display.work` describes it."""
    return _display.work(what, total, unit)


def show_progress(display: Display) -> Display:
    """Lets a display show all further work, and returns the one before."""
    global _display
    before, _display = _display, display
    return before


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Lets a display show the work of a block."""
    before = show_progress(display)
    try:
        yield
    finally:
        show_progress(before)
