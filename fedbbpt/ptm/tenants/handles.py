"""One tenant's registered examples: tokenised, in memory only, within a quota, and dropped when long unused.

The quota counts bytes and nothing else, so that it holds a few sets of many examples or many sets of a few. If it is
full, examples that nobody has used for a while make room. Examples in use never do: a tenant whose clients need more
than the quota would otherwise tokenise the same examples at every call, for ever.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, Overloaded, UnknownExamples
from fedbbpt.types import TaskSpec, Truncation

TOKEN_BYTES, ROW_BYTES, SET_BYTES = 40, 300, 2000
"""Estimated memory of a token, of a row and of a set of rows, as Python objects."""
IN_USE_SECONDS = 60.0
"""Examples that were used within this time never make room for others."""


@dataclass(slots=True)
class RegisteredExamples:
    """The examples of one handle."""

    id: str
    task_id: str
    task: TaskSpec
    rows: Sequence[Any]
    """The backend's prepared inputs, one for each of B examples."""
    digests: Sequence[bytes]
    """A digest of each row `[B]`."""
    labels: npt.NDArray[np.int64] | None
    """Classes `[B]`, if the tenant gets losses only."""
    tokens: int
    """Length of all rows together."""
    truncation: Truncation | None = None
    """The texts that the backend truncated; None if it does not tell."""
    used_at: float = 0.0
    """Time of the last use, in seconds of the engine's clock."""
    registrations: int = 1
    """Number of registrations that were not released yet."""
    bytes: int = field(init=False)
    """Estimated memory."""

    def __post_init__(self) -> None:
        known = sum(row.nbytes for row in self.rows if hasattr(row, "nbytes"))
        self.bytes = SET_BYTES + (known or TOKEN_BYTES * self.tokens + ROW_BYTES * len(self.rows))


def joined(sets: Sequence[RegisteredExamples]) -> RegisteredExamples:
    """Returns the examples of several handles of one task, without labels, as one set that no handle names."""
    rows = [row for each in sets for row in each.rows]
    digests = [digest for each in sets for digest in each.digests]
    tokens = sum(each.tokens for each in sets)
    return RegisteredExamples("", sets[0].task_id, sets[0].task, rows, digests, None, tokens)


class Handles:
    """The registered examples by handle. Evicts the least recently used ones. Callers pass the time, in seconds."""

    def __init__(self, *, max_bytes: int, time_to_live_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._time_to_live_seconds = time_to_live_seconds
        self._registered: OrderedDict[str, RegisteredExamples] = OrderedDict()  # least recently used first
        self.bytes = 0
        """Estimated memory of all examples."""

    def __len__(self) -> int:
        return len(self._registered)

    def make_room(self, examples: RegisteredExamples, now: float) -> None:
        """Evicts examples that are not in use until these ones fit the quota.

        Raises:
            InvalidExamples: These examples alone exceed the quota.
            Overloaded: Too many others are in use. None is evicted then.
        """
        if examples.bytes > self._max_bytes:
            raise InvalidExamples(f"{examples.bytes} bytes", where="examples", fix=f"at most {self._max_bytes}")
        self.drop_expired(now)
        evicted, room = [], self._max_bytes - self.bytes
        for oldest in self._registered.values():
            if room >= examples.bytes:
                break
            if now - oldest.used_at < IN_USE_SECONDS:
                what = f"{len(self._registered)} sets of examples in use fill this tenant's quota"
                fix = "release some, ask again when others were not used for a minute, or ask the provider for more"
                raise Overloaded(
                    f"{what} of {self._max_bytes} bytes", where="examples", fix=f"{fix} (max_example_bytes)"
                )
            room += oldest.bytes
            evicted.append(oldest.id)
        for examples_id in evicted:
            self._drop(examples_id)

    def put(self, examples: RegisteredExamples, now: float) -> None:
        """Keeps the examples under their id. Raises what `make_room` raises."""
        self._drop(examples.id)
        self.make_room(examples, now)
        examples.used_at = now
        self._registered[examples.id] = examples
        self.bytes += examples.bytes

    def __contains__(self, examples_id: str) -> bool:
        return examples_id in self._registered

    def get(self, examples_id: str, now: float) -> RegisteredExamples:
        """Returns the examples of a handle and counts that as a use. Raises UnknownExamples."""
        examples = self._registered.get(examples_id)
        if examples is None or now - examples.used_at > self._time_to_live_seconds:
            raise UnknownExamples("expired, released or never registered", where="examples_id", fix="register again")
        examples.used_at = now
        self._registered.move_to_end(examples_id)
        return examples

    def release(self, examples_id: str) -> None:
        """Takes back one registration. The examples stay while another caller has registered the same ones."""
        if examples := self._registered.get(examples_id):
            examples.registrations -= 1
            if examples.registrations < 1:
                self._drop(examples_id)

    def drop_expired(self, now: float) -> None:
        """Drops the examples that were last used too long ago."""
        while self._registered:
            oldest = next(iter(self._registered.values()))
            if now - oldest.used_at <= self._time_to_live_seconds:
                return
            self._drop(oldest.id)

    def _drop(self, examples_id: str) -> None:
        if examples := self._registered.pop(examples_id, None):
            self.bytes -= examples.bytes
