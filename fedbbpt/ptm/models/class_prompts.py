"""Plans and runs calls whose prompts join the class texts, for models that compare two embeddings.

score = scale x (embedding of class text k with prompt p) . (embedding of input b). A prompt costs the embeddings of K
class texts, however many inputs there are. The inputs have no prompt, so each of them is embedded once. Both are kept
for later calls. As in every job, a pair's scores do not depend on the other pairs: each embedding is that of its text
alone, and each score is one sum of products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import PromptTooLong
from fedbbpt.ptm.models.embedding_cache import EmbeddingCache, Vectors
from fedbbpt.ptm.scheduling.planner import plan
from fedbbpt.types import MicroBatch, Prompts, Scores, TaskSpec

Indices = npt.NDArray[np.int64]


class Embeddings(Protocol):
    """The two sides of one call. Methods are called by several threads at once."""

    def of_classes(self, prompts: Indices) -> Vectors:
        """Returns the embeddings `[N, K, E]` of all class texts with each of the prompts `[N]`."""
        ...

    def of_inputs(self, rows: Indices) -> Vectors:
        """Returns the embeddings `[N, E]` of inputs `[N]` of one length, without a prompt."""
        ...


@dataclass(frozen=True, slots=True)
class InputBatch(MicroBatch):
    """A micro-batch without pairs, which embeds the inputs of a part for the other micro-batches."""

    part: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Inputs of one length that are embedded together, by whoever holds the lock."""

    rows: Indices
    lock: Lock = field(default_factory=Lock)


class ClassPromptJob:
    """Implements `interfaces.ScoringJob`.

    Micro-batches may run in any order and in several threads. One that needs inputs that nobody has embedded yet embeds
    them itself. On a Ray cluster, where each replica keeps embeddings of its own, a second replica therefore embeds an
    input once more; the tokens count it once.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        task: TaskSpec,
        prompts: Prompts,
        wanted: npt.NDArray[np.bool_],
        *,
        prompt_tokens: int,
        row_tokens: Sequence[int],
        owners: Sequence[object],
        cache: EmbeddingCache,
        scale: float,
        token_budget: int,
    ) -> None:
        """Plans the job: first micro-batches that embed the missing inputs, then one for each group of prompts.

        Args:
            embeddings: Computes the embeddings.
            task: The task with the K class texts; `cache` keeps their embeddings with each prompt under it.
            prompts: The P prompts.
            wanted: The pairs to score `[P, B]`.
            prompt_tokens: The tokens of all class texts with one prompt.
            row_tokens: The tokens of each input `[B]`.
            owners: For each input, the object under which `cache` keeps its embedding `[B]`.
            cache: The embeddings that earlier calls have computed.
            scale: The factor of each product.
            token_budget: Most tokens of a micro-batch; one input, or the class texts of one prompt, may exceed it.
        """
        self._embeddings, self._cache, self._scale = embeddings, cache, np.float32(scale)
        self._task, self._owners, self._digests = task, owners, prompts.digests()[:, 0]
        used: npt.NDArray[np.bool_] = np.asarray(wanted.any(axis=0))
        self._inputs = [cache.get(one) if need else None for one, need in zip(owners, used, strict=True)]
        self._classes = [cache.get(task, one) for one in self._digests]
        planned = plan([0], row_tokens, used[None], max_tokens=max(row_tokens), token_budget=token_budget)
        # All parts are listed, also those that are cached, so that their numbers are the same in every replica.
        self._parts = [_Part(batch.rows) for batch in planned]
        self._part_of = {row: part for part in self._parts for row in part.rows.tolist()}
        tokens = np.array([prompt_tokens if known is None else 0 for known in self._classes])
        self.batches = (*self._input_batches(row_tokens), *_pair_batches(tokens, wanted, token_budget))

    def _input_batches(self, row_tokens: Sequence[int]) -> list[InputBatch]:
        nothing = np.empty(0, np.int64)
        tokens = [sum(row_tokens[row] for row in self._missing(part)) for part in self._parts]
        return [InputBatch(nothing, nothing, count, number) for number, count in enumerate(tokens) if count]

    def run(self, batch: MicroBatch) -> Scores:
        """Returns the scores `[N, K]` of the micro-batch's pairs."""
        count = len(self._task.classes)
        if isinstance(batch, InputBatch):
            part = self._parts[batch.part]
            with part.lock:
                self._embed(part)
            return np.empty((0, count), np.float32)
        prompts, prompt_of = np.unique(batch.prompts, return_inverse=True)
        rows, row_of = np.unique(batch.rows, return_inverse=True)
        classes, inputs = self._classes_of(prompts.tolist()), self._inputs_of(rows.tolist())
        scores = np.empty((len(batch.rows), count), np.float32)
        for number, each in enumerate(classes):
            pairs = np.flatnonzero(prompt_of == number)
            # einsum's own loop: a BLAS may add in another order for another number of inputs.
            scores[pairs] = self._scale * np.einsum("ke,ne->nk", each, inputs[row_of[pairs]])
        return scores

    def _classes_of(self, prompts: Sequence[int]) -> list[Vectors]:
        """Returns the embeddings `[K, E]` of the class texts with each prompt."""
        found = {prompt: known for prompt in prompts if (known := self._classes[prompt]) is not None}
        if missing := [prompt for prompt in prompts if prompt not in found]:
            for prompt, vectors in zip(missing, self._embeddings.of_classes(np.array(missing)), strict=True):
                found[prompt] = vectors
                self._cache.put(self._task, vectors, self._digests[prompt])
        return [found[prompt] for prompt in prompts]

    def _inputs_of(self, rows: Sequence[int]) -> Vectors:
        """Returns the embeddings `[N, E]` of inputs. Parts that another thread is embedding are waited for last."""
        parts = {id(part): part for part in map(self._part_of.__getitem__, rows)}.values()
        waiting = []
        for part in parts:
            if part.lock.acquire(blocking=False):
                try:
                    self._embed(part)
                finally:
                    part.lock.release()
            else:
                waiting.append(part)
        for part in waiting:
            with part.lock:
                self._embed(part)
        return np.stack([vector for row in rows if (vector := self._inputs[row]) is not None])

    def _missing(self, part: _Part) -> list[int]:
        return [row for row in part.rows.tolist() if self._inputs[row] is None]

    def _embed(self, part: _Part) -> None:
        """Embeds the part's inputs that are missing. The caller holds its lock."""
        if missing := self._missing(part):
            for row, vector in zip(missing, self._embeddings.of_inputs(np.array(missing)), strict=True):
                self._inputs[row] = vector
                self._cache.put(self._owners[row], vector)


def check_class_lengths(task: TaskSpec, lengths: Sequence[int], prompt_tokens: int, max_tokens: int) -> None:
    """Raises PromptTooLong if a class text of `lengths` `[K]` tokens has no room for a prompt of `prompt_tokens`."""
    longest = int(np.argmax(lengths))
    if lengths[longest] + prompt_tokens > max_tokens:
        what = f"{prompt_tokens} prompt tokens and {lengths[longest]} tokens of class {task.classes[longest]!r}"
        raise PromptTooLong(what, where="prompts", fix=f"at most {max_tokens} together")


def _pair_batches(tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_], token_budget: int) -> list[MicroBatch]:
    """Returns a micro-batch with all wanted pairs of each group of prompts `[P]`. Groups have nearly equal sizes."""
    asked = np.flatnonzero(wanted.any(axis=1))
    together = max(1, token_budget // max(1, int(tokens.max())))
    batches = []
    for prompts in np.array_split(asked, -(-len(asked) // together)):
        numbers, rows = np.nonzero(wanted[prompts])
        batches.append(MicroBatch(prompts[numbers], rows, int(tokens[prompts].sum())))
    return batches
