"""Replay: a client that holds the search of a round computes the next broadcast from what the server learnt.

What the server knows of its own search, a client can know. So a task need not hold the broadcast: it holds the *news*,
a few numbers from which the server's step follows, and a digest of the state that must come out. A client that missed
some rounds gets the news of all of them, if these are smaller than the state. A client without a state that news lead
on from, or whose arithmetic leads to another one, gets the state.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Replay
from fedbbpt.types import Arrays, Forms, Update

log = logging.getLogger(__name__)

DIGEST_BYTES = 8
SEED_BYTES = 8
MAX_STEPS = 256
"""The most rounds that a client may have missed and still gets news. Replaying so many takes a fraction of a second."""


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
class Step:
    """What a round found, from which the step that it made follows."""

    seed: int
    """The seed of the round's tasks."""
    news: Arrays


@dataclass(frozen=True, slots=True)
class News:
    """What leads from a state to a later one."""

    arrays: Arrays
    """The news of one step; of several, each array has a row for each step."""
    seeds: tuple[int, ...] = ()
    """The seeds of the tasks of all rounds but the first: none for one step."""

    def steps(self, first: int) -> Sequence[Step]:
        """Returns the steps in order. `first` is the seed of the first round's tasks.

        Raises InvalidTensor if the arrays do not have a row for each step.
        """
        if not self.seeds:
            return [Step(first, self.arrays)]
        seeds = [first, *self.seeds]
        for name, array in self.arrays.items():
            if array.shape[:1] != (len(seeds),):
                raise InvalidTensor(f"shape {array.shape}", where=name, fix=f"{len(seeds)} rows, one for each step")
        return [Step(seed, {name: array[row] for name, array in self.arrays.items()}) for row, seed in enumerate(seeds)]


@dataclass(frozen=True, slots=True)
class Told:
    """The forms in which a round's broadcast can be told to clients that replay."""

    held: Arrays
    """The whole state, for a client without the one before."""
    after: bytes
    """The digest of `held` and `seed`."""
    seed: int
    """The seed of the round's tasks."""
    steps: dict[bytes, Step] = field(default_factory=dict)
    """The last steps in a row, which lead to `held`, by the digests of the states before them."""

    def since(self, digest: bytes) -> News:
        """Returns the news since the state of a digest among `steps`."""
        digests = list(self.steps)
        missed = [self.steps[each] for each in digests[digests.index(digest) :]]
        if len(missed) == 1:
            return News(missed[0].news)
        arrays = {name: np.stack([step.news[name] for step in missed]) for name in missed[0].news}
        return News(arrays, tuple(step.seed for step in missed[1:]))


def opened(replay: Replay[Any], state: Any, broadcast: Arrays, seed: int) -> Told:
    """Returns what clients are told of a round without news, as after a restart. `seed` is that of its tasks."""
    held = replay.held(state, broadcast)
    return Told(held, digest(held, seed), seed)


def learnt(
    replay: Replay[Any], told: Told, following: Told, after: Any, broadcast: Arrays, updates: Sequence[Update]
) -> Told:
    """Returns what clients are told of the round `following` that of `told`, after the step that its updates made.

    Steps are kept as long as their news together are smaller than the state, and can be told as one array for all. The
    server replays the step itself. If that does not lead to its own state, for example because the step failed and
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
    last = next(reversed(told.steps.values()), None)
    earlier = told.steps if last is not None and _forms(last.news) == _forms(news) else {}
    steps = dict([*earlier.items(), (told.after, Step(told.seed, news))][-MAX_STEPS:])
    size = sum(_size(step.news) + SEED_BYTES for step in steps.values())
    while steps and size >= _size(following.held):
        size -= _size(steps.pop(next(iter(steps))).news) + SEED_BYTES
    return replace(following, steps=steps)


def _forms(arrays: Arrays) -> Forms:
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
