"""A client's copy of the server's search, which it carries on from what the server learnt in each round."""

from dataclasses import replace
from typing import Any

import numpy as np

from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Replay
from fedbbpt.methods.replay import News, Step, Told, digest
from fedbbpt.types import Arrays


class CannotReplay(Exception):
    """The client's search is not the coordinator's, so it needs the broadcasts whole."""


class HeldSearch:
    """The search after the client's last task. It lives as long as the process: a restarted client gets it whole."""

    def __init__(self, replay: Replay[Any]) -> None:
        self._replay = replay
        self.told: Told | None = None
        """The search, and the news that led to it, if it was not told whole; None before the first task."""
        self._last: Arrays = {}
        """The broadcast of the last task."""

    @property
    def digest(self) -> bytes:
        """The digest of the search and of its task's seed; empty before the first task."""
        return self.told.after if self.told is not None else b""

    def draw_ahead(self) -> None:
        """Computes what the next step needs besides its news, while the client waits for them."""
        if self.told is not None:
            self._replay.draw_ahead(self._last, self.told.seed)

    def broadcast(self, before: bytes, after: bytes, news: News, seed: int) -> Arrays:
        """Returns the broadcast of a task.

        Args:
            before: The digest of the search that the news lead on from; empty if their arrays are all of a search.
            after: The digest of the task's search.
            news: The news, without arrays if the search is the same as before, or the whole search.
            seed: The seed of the task.

        Raises:
            CannotReplay: Another search came out, because machines round differently or versions differ.
        """
        try:
            told = self._following(before, news, seed)
            if told.after != after:
                raise CannotReplay("this machine computes the search to other bits than the coordinator")
            broadcast = self._replay.broadcast(told.held)
        except (LookupError, ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError, InvalidTensor) as error:
            raise CannotReplay(f"the coordinator's search cannot be read here: {error}") from error
        self.told, self._last = told, broadcast
        return broadcast

    def _following(self, before: bytes, news: News, seed: int) -> Told:
        last = self.told
        if not before:
            return Told(news.arrays, digest(news.arrays, seed), seed)
        if last is None or before != last.after:
            raise CannotReplay("the coordinator continues another search than this client holds")
        if not news.arrays:
            return replace(last, after=digest(last.held, seed), seed=seed)
        held, found, steps = last.held, before, dict[bytes, Step]()
        with np.errstate(all="ignore"):
            for step, following in zip(news.steps(last.seed), (*news.seeds, seed), strict=True):
                held, steps[found] = self._replay.replayed(held, step.news, step.seed), step
                found = digest(held, following)
        return Told(held, found, seed, steps)
