"""Replay: a client that holds the search of a round computes the next broadcast from what the server learnt.

What the server knows of its own search, a client can know. So a task need not hold the broadcast: it holds the *news*,
a few numbers from which the server's step follows, and a digest of the state that must come out. A client without the
state, or whose arithmetic leads to another one, gets all of it.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Replay
from fedbbpt.types import Arrays, Update

log = logging.getLogger(__name__)

DIGEST_BYTES = 8


def digest(arrays: Arrays, seed: int) -> bytes:
    """Returns the first bytes of the SHA-256 of a state and of the seed of its round's tasks.

    It covers the arrays' names, types, shapes and bytes, sorted by name. The seed belongs to it because the next step
    depends on it, and because a step that failed leaves the state as it was.
    """
    found = hashlib.sha256(f"{seed}\n".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        found.update(array.tobytes())
    return found.digest()[:DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class Told:
    """The forms in which a round's broadcast can be told to clients that replay."""

    held: Arrays
    """The whole state, for a client without the one before."""
    after: bytes
    """The digest of `held` and `seed`."""
    seed: int
    """The seed of the round's tasks."""
    news: Arrays = field(default_factory=dict)
    before: bytes = b""
    """The digest of the state and the seed from which the news lead to `held`; empty if there are none."""


def opened(replay: Replay[Any], state: Any, broadcast: Arrays, seed: int) -> Told:
    """Returns what clients are told of a round without news, as after a restart. `seed` is that of its tasks."""
    held = replay.held(state, broadcast)
    return Told(held, digest(held, seed), seed)


def learnt(
    replay: Replay[Any], told: Told, following: Told, after: Any, broadcast: Arrays, updates: Sequence[Update]
) -> Told:
    """Returns what clients are told of the round `following` that of `told`, after the step that its updates made.

    The server replays the step itself. If that does not lead to its own state, for example because the step failed and
    the state stayed as it was, there are no news, and all clients get the whole state.
    """
    try:
        with np.errstate(all="ignore"):
            news = replay.news(after, broadcast, updates, told.seed)
            found = digest(replay.replayed(told.held, news, told.seed), following.seed)
    except (ArithmeticError, np.linalg.LinAlgError, InvalidTensor):
        found = b""
    if found != following.after:
        log.info("the step cannot be replayed; clients get the whole state")
        return following
    if _size(news) >= _size(following.held):
        return following
    return replace(following, news=news, before=told.after)


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
