"""Scores the pairs of one call. Cached pairs, and repetitions of a pair within the call, are not computed again."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import FedbbptError, InvalidTensor, ScoreUnavailable
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.tenants.handles import RegisteredExamples
from fedbbpt.ptm.tenants.result_cache import ResultCache
from fedbbpt.types import MicroBatch, Prompts, Scores, Usage

MAX_UNTOLD_SHARE = 0.5
"""The largest share of a call's pairs of which nothing but upper bounds is known."""


class Scoring:
    """The P x B pairs of a call. A job of the backend computes those that are not cached."""

    def __init__(
        self,
        backend: Backend[Any],
        examples: RegisteredExamples,
        prompts: Prompts,
        digests: npt.NDArray[np.object_],
        prefix: bytes,
        cache: ResultCache,
        clock: Callable[[], float],
        *,
        fresh: bool = False,
    ) -> None:
        """Looks up the cached pairs, and plans the others.

        Args:
            backend: The backend whose job computes the pairs.
            examples: The B examples.
            prompts: The P prompts.
            digests: A digest of each prompt `[P, 1]`, or of each prompt with each example `[P, B]`.
            prefix: The start of every cache key, which identifies the task.
            cache: The tenant's cached scores.
            clock: Returns seconds, from any origin.
            fresh: Whether to compute all pairs, without the cache.

        Raises:
            InvalidTensor: The number of pictures in a prompt is neither 1 nor B.
            FedbbptError: What `backend.job` raises.
        """
        self.examples, self._clock, self._lock = examples, clock, Lock()
        if digests.shape[1] not in (1, len(examples.rows)):
            fix = f"one for each of {len(examples.rows)} examples, or one for all"
            raise InvalidTensor(f"{digests.shape[1]} pictures in a prompt", where="image.deltas", fix=fix)
        shape = len(digests), len(examples.rows)
        self._source = np.arange(shape[0] * shape[1]) if fresh else _first_equal(digests, examples.digests)
        """For each pair, the first pair that equals it."""
        self._repeats = bool((self._source != np.arange(self._source.size)).any())
        """Whether the call has a pair twice."""
        self._prefix, self._digests = prefix, digests
        self._scores = np.empty((*shape, len(examples.task.classes)), np.float32)
        self._bounds = np.zeros(self._scores.shape, bool)
        """Scores that are upper bounds."""
        self._known = np.zeros(shape, bool)
        """Pairs `[P, B]` that are cached, or computed by now."""
        wanted = np.ones(shape, bool) if fresh else self._look_up(cache)
        self._job = backend.job(examples.task, prompts, examples.rows, wanted) if wanted.any() else None
        self._cached = self._known.copy()
        self._tokens, self._seconds = 0, 0.0
        self._planned_at = clock()
        self._first_started: float | None = None

    def _look_up(self, cache: ResultCache) -> npt.NDArray[np.bool_]:
        """Fills in cached scores and returns which pairs to compute `[P, B]`."""
        wanted: npt.NDArray[np.bool_] = np.equal(self._source, np.arange(self._source.size))
        if cache.keeps:
            classes, flat, known = self._scores.shape[2], self._flat, self._known.reshape(-1)
            for index in np.flatnonzero(wanted).tolist():
                found = cache.get(self._key(index))
                if found is not None:
                    wanted[index], known[index], flat[index] = False, True, found[:classes]
                    self._flat_bounds[index] = found[classes:] if len(found) > classes else False
        return wanted.reshape(self._known.shape)

    def _key(self, pair: int) -> bytes:
        """The cache's key of a pair, counted row by row."""
        prompt, row = divmod(pair, self._known.shape[1])
        of_prompt: bytes = self._digests[prompt, row if self._digests.shape[1] > 1 else 0]
        return self._prefix + of_prompt + self.examples.digests[row]

    @property
    def _flat(self) -> npt.NDArray[np.float32]:
        return self._scores.reshape(-1, self._scores.shape[2])

    @property
    def _flat_bounds(self) -> npt.NDArray[np.bool_]:
        return self._bounds.reshape(-1, self._scores.shape[2])

    @property
    def queries(self) -> int:
        """Number of pairs in the call."""
        return self._known.size

    @property
    def known_queries(self) -> int:
        """Number of pairs that are cached, or equal to another pair of the call."""
        return self.queries - sum(len(batch.rows) for batch in self.batches)

    @property
    def batches(self) -> Sequence[MicroBatch]:
        """The micro-batches to run, in any order."""
        return self._job.batches if self._job else ()

    @property
    def tokens(self) -> int:
        """Number of tokens in all micro-batches."""
        return sum(batch.tokens for batch in self.batches)

    def run(self, batch: MicroBatch) -> None:
        """Computes a micro-batch. Thread-safe."""
        assert self._job is not None, "without a job there is no micro-batch"
        started = self._clock()
        found = self._job.run(batch)
        with self._lock:
            self._first_started = started if self._first_started is None else self._first_started
            self._scores[batch.prompts, batch.rows] = found if found.ndim == 2 else found[:, 0]
            if found.ndim == 3:
                self._bounds[batch.prompts, batch.rows] = found[:, 1] != 0
            self._known[batch.prompts, batch.rows] = True
            self._tokens += batch.tokens
            self._seconds += self._clock() - started

    def keep(self, cache: ResultCache) -> None:
        """Caches the scores that were computed and are finite."""
        if not cache.keeps:
            return
        fresh = (self._known & ~self._cached).reshape(-1) & np.isfinite(self._flat).all(axis=1)
        marked = np.asarray(self._flat_bounds.any(axis=1))
        for index in np.flatnonzero(fresh).tolist():
            scores = self._flat[index]
            if marked[index]:
                scores = np.concatenate([scores, self._flat_bounds[index].astype(np.float32)])
            cache.put(self._key(index), scores)

    def scores(self) -> Scores:
        """Returns the scores `[P, B, K]`, once all micro-batches have run."""
        return self._flat[self._source].reshape(self._scores.shape) if self._repeats else self._scores

    def bounds(self) -> npt.NDArray[np.bool_]:
        """Returns which scores are upper bounds `[P, B, K]`, once all micro-batches have run."""
        return self._flat_bounds[self._source].reshape(self._scores.shape) if self._repeats else self._bounds

    def problem(self) -> FedbbptError | None:
        """Returns why the scores are no answer, or None; once all micro-batches have run."""
        finite = np.isfinite(self.scores())
        if not finite.all():
            broken = np.flatnonzero(~finite.all(axis=(1, 2)))
            what = f"the scores of prompts {broken.tolist()} are not finite"
            return InvalidTensor(what, where="prompts", fix="prompts nearer to the model's own embeddings")
        untold = self.bounds().all(axis=2)
        if untold.any() and untold.mean() > MAX_UNTOLD_SHARE:
            what = f"only bounds are known of all label words for {untold.sum()} of {untold.size} pairs"
            fix = "label words of one token with which the model is likely to go on, or a template that asks for them"
            return ScoreUnavailable(what, where="classes", fix=fix)
        return None

    def usage(self) -> Usage:
        """Returns the usage so far. For an unfinished call that is the computed pairs only."""
        computed = int((self._known & ~self._cached).sum())
        finished = bool((self._known.reshape(-1)[self._source] if self._repeats else self._known).all())
        queries = self.queries if finished else computed
        waited = 0.0 if self._first_started is None else self._first_started - self._planned_at
        bounded = int(self.bounds().sum()) if finished else int(self._bounds.sum())
        return Usage(queries, self._tokens, self._seconds, queries - computed, waited, bounded_scores=bounded)


def _first_equal(prompts: npt.NDArray[np.object_], rows: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Returns for each of P x B pairs the index of the first pair with the same digests.

    Args:
        prompts: A digest of each prompt `[P, 1]`, or of each prompt with each example `[P, B]`.
        rows: A digest of each example `[B]`.
    """
    of_prompts, of_rows = prompts.ravel().tolist(), list(rows)
    count = len(prompts) * len(of_rows)
    if len(set(of_prompts)) == len(of_prompts) and len(set(of_rows)) == len(of_rows):
        return np.arange(count)
    numbers: dict[bytes, int] = {}
    codes = np.array([numbers.setdefault(each, len(numbers)) for each in of_prompts]).reshape(prompts.shape)
    own = np.array([numbers.setdefault(each, len(numbers)) for each in of_rows])
    _, first, inverse = np.unique((codes * len(numbers) + own).ravel(), return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])
