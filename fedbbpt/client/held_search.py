"""A client's copy of the server's search, which it carries on from what the server learnt in each round."""

from typing import Any

import numpy as np

from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Replay
from fedbbpt.methods.replay import News, digest
from fedbbpt.types import Arrays


class CannotReplay(Exception):
    """The client's search is not the coordinator's, so it needs the broadcasts whole."""


class HeldSearch:
    """The search after the client's last task. It lives as long as the process: a restarted client gets it whole."""

    def __init__(self, replay: Replay[Any]) -> None:
        self._replay = replay
        self._held: Arrays = {}
        self._seed = 0
        self.digest = b""
        """The digest of the search and of its task's seed; empty before the first task."""

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
        held = self._held
        try:
            if not before:
                held = news.arrays
            elif before != self.digest:
                raise CannotReplay("the coordinator continues another search than this client holds")
            elif news.arrays:
                with np.errstate(all="ignore"):
                    for step in news.steps(self._seed):
                        held = self._replay.replayed(held, step.news, step.seed)
            if digest(held, seed) != after:
                raise CannotReplay("this machine computes the search to other bits than the coordinator")
            broadcast = self._replay.broadcast(held)
        except (LookupError, ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError, InvalidTensor) as error:
            raise CannotReplay(f"the coordinator's search cannot be read here: {error}") from error
        self._held, self._seed, self.digest = held, seed, after
        return broadcast
