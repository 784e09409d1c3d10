"""A call's pairs on their way to their scores.

Pairs that are known from before, and all but the first of those that are the same, are not computed again.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.tenants.handles import Kept
from fedbbpt.ptm.tenants.result_cache import ResultCache
from fedbbpt.types import MicroBatch, Prompts, Scores, Usage


class Scoring:
    """P x B pairs, of which a backend's job computes the unknown ones. `clock` gives seconds."""

    def __init__(
        self,
        backend: Backend[Any],
        kept: Kept,
        prompts: Prompts,
        digests: npt.NDArray[np.object_],
        prefix: bytes,
        cache: ResultCache,
        clock: Callable[[], float],
        *,
        fresh: bool = False,
    ) -> None:
        """`digests` `[P, 1 or B]` name the prompts, `prefix` whatever else tells pairs apart.

        `fresh` computes all of them. Raises InvalidTensor, and what `backend.job` raises.
        """
        self.kept, self._clock, self._lock = kept, clock, Lock()
        if digests.shape[1] not in (1, len(kept.rows)):
            fix = f"one for each of {len(kept.rows)} examples, or one for all"
            raise InvalidTensor(f"{digests.shape[1]} pictures in a prompt", where="image.deltas", fix=fix)
        pairs = np.broadcast_to(digests, (len(digests), len(kept.rows)))
        self._keys = [prefix + pair + kept.digests[b] for (_, b), pair in np.ndenumerate(pairs)]
        self._source = np.arange(pairs.size)
        self._scores = np.empty((*pairs.shape, len(kept.task.classes)), np.float32)
        self._known = np.zeros(pairs.shape, bool)
        """Cached, or computed by now."""
        wanted = np.ones(pairs.shape, bool) if fresh else self._look_up(cache)
        self._job = backend.job(kept.task, prompts, kept.rows, wanted) if wanted.any() else None
        self._cached = self._known.copy()
        self._tokens, self._seconds = 0, 0.0
        self.queued_at = clock()
        self._first_started: float | None = None

    def _look_up(self, cache: ResultCache) -> npt.NDArray[np.bool_]:
        """The pairs to compute `[P, B]`."""
        first: dict[bytes, int] = {}
        flat, known, wanted = self._flat, self._known.reshape(-1), np.zeros(self._known.size, bool)
        for index, key in enumerate(self._keys):
            self._source[index] = first.setdefault(key, index)
            if self._source[index] == index:
                found = cache.get(key)
                if found is None:
                    wanted[index] = True
                else:
                    flat[index], known[index] = found, True
        return wanted.reshape(self._known.shape)

    @property
    def _flat(self) -> npt.NDArray[np.float32]:
        return self._scores.reshape(-1, self._scores.shape[2])

    @property
    def queries(self) -> int:
        """That were asked."""
        return len(self._keys)

    @property
    def known_queries(self) -> int:
        """Of those, that were known before, or are the same as others."""
        return self.queries - sum(len(batch.rows) for batch in self.batches)

    @property
    def batches(self) -> Sequence[MicroBatch]:
        return self._job.batches if self._job else ()

    @property
    def tokens(self) -> int:
        """That all of it takes."""
        return sum(batch.tokens for batch in self.batches)

    def run(self, batch: MicroBatch) -> None:
        """Computes a micro-batch. May be called by several threads at once."""
        assert self._job is not None, "without a job there is no batch"
        started = self._clock()
        found = self._job.run(batch)
        with self._lock:
            self._first_started = started if self._first_started is None else self._first_started
            self._scores[batch.prompts, batch.rows] = found
            self._known[batch.prompts, batch.rows] = True
            self._tokens += batch.tokens
            self._seconds += self._clock() - started

    def keep(self, cache: ResultCache) -> None:
        """Puts what was computed into the cache, if it is finite."""
        fresh = (self._known & ~self._cached).reshape(-1) & np.isfinite(self._flat).all(axis=1)
        for index in np.flatnonzero(fresh):
            cache.put(self._keys[index], self._flat[index])

    def scores(self) -> Scores:
        """`[P, B, K]`, once all micro-batches have run."""
        return self._flat[self._source].reshape(self._scores.shape)

    def usage(self) -> Usage:
        """What it took by now: of a call that was given up, the computed pairs only."""
        computed = int((self._known & ~self._cached).sum())
        finished = bool(self._known.reshape(-1)[self._source].all())
        queries = self.queries if finished else computed
        waited = (self._first_started or self.queued_at) - self.queued_at
        return Usage(queries, self._tokens, self._seconds, queries - computed, waited)
