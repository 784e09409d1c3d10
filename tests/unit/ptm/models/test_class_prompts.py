"""Jobs with prompts in the class texts: every pair once, every embedding once, in any order and any threads."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.ptm.models.class_prompts import ClassPromptJob, Indices
from fedbbpt.ptm.models.embedding_cache import EmbeddingCache, Vectors
from fedbbpt.types import Injection, MicroBatch, SoftPrompts, TaskSpec

WIDTH = 8
CACHE_BYTES = 100_000


class Owner:
    pass


class Tables:
    """Embeddings that are drawn once, and a count of how often each is asked for."""

    def __init__(self, prompts: int, classes: int, inputs: int) -> None:
        draw = np.random.default_rng(0)
        self.classes = draw.normal(size=(prompts, classes, WIDTH)).astype(np.float32)
        self.inputs = draw.normal(size=(inputs, WIDTH)).astype(np.float32)
        self.asked: Counter[tuple[str, int]] = Counter()

    def of_classes(self, prompts: Indices) -> Vectors:
        self.asked.update(("prompt", p) for p in prompts.tolist())
        return self.classes[prompts]

    def of_inputs(self, rows: Indices) -> Vectors:
        self.asked.update(("input", row) for row in rows.tolist())
        return self.inputs[rows]


class Call:
    """A call with 3 classes of 5 tokens each, prompts included."""

    def __init__(self, prompts: int, lengths: Sequence[int]) -> None:
        self.lengths, self.tables = lengths, Tables(prompts, 3, len(lengths))
        self.task, self.owners = TaskSpec("{text}", ("a", "b", "c")), [Owner() for _ in lengths]
        self.cache = EmbeddingCache(CACHE_BYTES)
        vectors = np.arange(prompts, dtype=np.float32)[:, None, None] * np.ones((1, 2, 4), np.float32)
        self.prompts = SoftPrompts(vectors, Injection.CLASS)

    def job(self, wanted: npt.NDArray[np.bool_], *, token_budget: int = 40) -> ClassPromptJob:
        return ClassPromptJob(
            self.tables,
            self.task,
            self.prompts,
            wanted,
            prompt_tokens=15,
            row_tokens=self.lengths,
            owners=self.owners,
            cache=self.cache,
            scale=2.0,
            token_budget=token_budget,
        )

    def check(self, job: ClassPromptJob, batches: Sequence[MicroBatch], wanted: npt.NDArray[np.bool_]) -> None:
        """Runs the micro-batches in two threads, and compares the scores with the products of the tables."""
        found = np.full((*wanted.shape, 3), np.nan)
        with ThreadPoolExecutor(2) as threads:
            for batch, part in zip(batches, threads.map(job.run, batches), strict=True):
                assert part.shape == (len(batch.rows), 3) and np.isnan(found[batch.prompts, batch.rows]).all()
                found[batch.prompts, batch.rows] = part
        products = 2 * np.einsum("pke,be->pbk", self.tables.classes, self.tables.inputs)
        assert np.array_equal(~np.isnan(found).any(axis=2), wanted)
        assert found[wanted] == pytest.approx(products[wanted], rel=1e-4, abs=1e-5)


@given(
    st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 90), st.integers(0, 2**32)
)
def test_every_wanted_pair_is_scored_once_and_every_embedding_computed_once(
    prompts: int, lengths: list[int], budget: int, seed: int
) -> None:
    """Kills: an input that no micro-batch embeds; one that several threads embed; the embeddings of another prompt."""
    draw, call = np.random.default_rng(seed), Call(prompts, lengths)
    wanted = draw.random((prompts, len(lengths))) < 0.6
    wanted[0, 0] = True
    job = call.job(wanted, token_budget=budget)
    call.check(job, [job.batches[i] for i in draw.permutation(len(job.batches))], wanted)
    asked, used = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    assert call.tables.asked == dict.fromkeys([("prompt", p) for p in asked] + [("input", b) for b in used], 1)
    assert sum(batch.tokens for batch in job.batches) == 15 * len(asked) + sum(lengths[b] for b in used)


def test_a_later_call_computes_only_what_is_missing() -> None:
    call, wanted = Call(3, [4, 4, 6]), np.zeros((3, 3), bool)
    wanted[:2, :2] = True
    first = call.job(wanted)
    call.check(first, first.batches, wanted)
    call.tables.asked.clear()
    every = np.ones((3, 3), bool)
    second = call.job(every)
    call.check(second, second.batches, every)
    assert call.tables.asked == {("prompt", 2): 1, ("input", 2): 1}
    assert sum(batch.tokens for batch in second.batches) == 15 + 6


def test_what_is_evicted_after_the_plan_is_not_missed() -> None:
    """The job holds on to the embeddings that its plan does not compute."""
    call, every = Call(2, [4, 6]), np.ones((2, 2), bool)
    first = call.job(every)
    call.check(first, first.batches, every)
    second = call.job(every)
    call.cache.put(Owner(), np.zeros(CACHE_BYTES, np.float32))  # evicts all others, and itself
    assert call.cache.get(call.task, call.prompts.digests()[0, 0]) is None
    call.tables.asked.clear()
    call.check(second, second.batches, every)
    assert not call.tables.asked
