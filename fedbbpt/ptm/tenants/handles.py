"""Registered examples, tokenised, in memory only: each tenant's own, within its quota, for as long as they are used."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, UnknownExamples
from fedbbpt.types import TaskSpec

TOKEN_BYTES, ROW_BYTES = 40, 300
"""What tokens and rows take in Python, about."""


@dataclass(slots=True)
class Kept:
    """A handle's examples."""

    id: str
    task_id: str
    task: TaskSpec
    rows: Sequence[Any]
    digests: Sequence[bytes]
    """Of the rows."""
    labels: npt.NDArray[np.int64] | None
    tokens: int
    used_at: float = 0.0
    registrations: int = 1
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        known = [row.nbytes for row in self.rows if hasattr(row, "nbytes")]
        self.bytes = sum(known) or TOKEN_BYTES * self.tokens + ROW_BYTES * len(self.rows)


class Handles:
    """What one tenant has registered; what was used least recently gives way. Time comes in."""

    def __init__(self, *, max_handles: int, max_bytes: int, time_to_live_seconds: float) -> None:
        self._max_handles, self._max_bytes = max_handles, max_bytes
        self._time_to_live_seconds = time_to_live_seconds
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, kept: Kept) -> None:
        """Raises InvalidExamples where it alone exceeds the quota."""
        if kept.bytes > self._max_bytes:
            raise InvalidExamples(f"{kept.bytes} bytes", where="examples", fix=f"at most {self._max_bytes}")

    def put(self, kept: Kept, now: float) -> None:
        """Raises InvalidExamples where it alone exceeds the quota."""
        self.check(kept)
        kept.used_at = now
        self._drop(kept.id)
        self._kept[kept.id] = kept
        self.bytes += kept.bytes
        self.forget(now)
        while len(self._kept) > self._max_handles or self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def get(self, name: str, now: float) -> Kept:
        """Raises UnknownExamples."""
        kept = self._kept.get(name)
        if kept is None or now - kept.used_at > self._time_to_live_seconds:
            raise UnknownExamples("expired, released or never registered", where="examples_id", fix="register again")
        kept.used_at = now
        self._kept.move_to_end(name)
        return kept

    def release(self, name: str) -> None:
        """Takes back one registration: the same examples may be in use elsewhere, under the same name."""
        if kept := self._kept.get(name):
            kept.registrations -= 1
            if kept.registrations < 1:
                self._drop(name)

    def forget(self, now: float) -> None:
        """Drops what has expired."""
        while self._kept and now - next(iter(self._kept.values())).used_at > self._time_to_live_seconds:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        if kept := self._kept.pop(name, None):
            self.bytes -= kept.bytes
