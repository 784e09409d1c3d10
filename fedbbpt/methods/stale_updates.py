"""Updates that count in a later round than that of their task, in asynchronous runs."""

from typing import Any

from fedbbpt.errors import InvalidPlugin
from fedbbpt.interfaces import MovesUpdates, ServerHalf
from fedbbpt.types import Update


def displaced(half: ServerHalf[Any], update: Update, before: Any, after: Any, seed: int) -> Update:
    """Returns an update to the state `before` moved to the state `after`. Raises InvalidPlugin."""
    check_moves_updates(half, type(half).__name__)
    assert isinstance(half, MovesUpdates), "checked above"
    return half.displaced(update, before, after, seed)


def check_moves_updates(half: ServerHalf[Any], name: str) -> None:
    """Raises InvalidPlugin if the method `name` says that it takes stale updates, and its server cannot move them."""
    if not isinstance(half, MovesUpdates):
        what, fix = "stale updates are said to count, but the server's half cannot move them", "a method `displaced`"
        raise InvalidPlugin(what, where=name, fix=fix)
