"""Splits each causal pair into a prefix, whose keys and values other pairs can reuse, and a remainder of its own.

The prefix ends after the prompt if the example's own text comes later, since all examples then share what stands before
the text. Otherwise it ends before the prompt, since all prompts share the example. The choice depends only on the pair,
never on the rest of the call, so a pair's scores are bit-identical in any batch.

The tokens of a prefix count in the first micro-batch of a job that needs it, even if an earlier job has left its keys
and values in the cache: the cost of a job depends on the job alone, not on other jobs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.injection import PromptVectors
from fedbbpt.ptm.models.text.key_value_cache import CacheSlot, Prefix
from fedbbpt.types import Injection, MicroBatch

Indices: TypeAlias = npt.NDArray[np.int64]
Embed: TypeAlias = Callable[[Sequence[int]], Tensor]
"""Returns the word vectors `[T, D]` of T token ids."""


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """The prefixes of a job's P x B pairs."""

    lengths: Indices
    """Tokens of each pair's prefix, `[P, B]`; 0 if the pair is computed whole."""
    indices: Indices
    """Index of each pair's prefix in `prefixes`, `[P, B]`."""
    prefixes: Sequence[Prefix]

    def of(self, batch: MicroBatch) -> list[Prefix]:
        """Returns the prefix of each of the batch's pairs, or nothing if they are computed whole."""
        if not len(batch.rows) or not self.lengths[batch.prompts[0], batch.rows[0]]:
            return []
        return [self.prefixes[index] for index in self.indices[batch.prompts, batch.rows]]

    def add_prefix_tokens(self, batches: Sequence[MicroBatch]) -> tuple[MicroBatch, ...]:
        """Returns the batches with the tokens of the prefixes that they have to compute, each prefix once."""
        uncounted = [prefix.outlives_job or prefix.slot.key_values is None for prefix in self.prefixes]
        counted = []
        for batch in batches:
            indices = self.indices[batch.prompts, batch.rows][: len(self.of(batch))]
            tokens = 0
            for index, length in zip(indices.tolist(), self.lengths[batch.prompts, batch.rows].tolist(), strict=False):
                tokens += length * uncounted[index]
                uncounted[index] = False
            counted.append(replace(batch, tokens=batch.tokens + tokens))
        return tuple(counted)


def find_shared_prefixes(
    vectors: PromptVectors, rows: Sequence[TokenisedExample], embed: Embed, *, fewest: int
) -> SharedPrefixes:
    """Finds the prefixes of all pairs.

    A pair whose prefix would have fewer than `fewest` tokens, or whose remainder would have none, stays whole. A deep
    prompt is a prefix of its own, whose keys and values are given.
    """
    prompts = np.array([len(prompt) for prompt in vectors.each], np.int64)
    lengths = np.zeros((len(prompts), len(rows)), np.int64)
    indices = np.zeros_like(lengths)
    if vectors.deep is not None:
        pasts = [tuple((keys[None], values[None]) for keys, values in prompt) for prompt in vectors.deep]
        prefixes = [Prefix(CacheSlot(past), partial(embed, ())) for past in pasts]
        return SharedPrefixes(lengths + prompts[:, None], indices + np.arange(len(prefixes))[:, None], prefixes)
    if vectors.injection not in (Injection.PREFIX, Injection.PLACE):
        return SharedPrefixes(lengths, indices, ())
    prefixes, known = [], {}
    for column, row in enumerate(rows):
        join_index = vectors.join_index(row)
        before = row.ids[:join_index]
        if join_index > row.text_index:
            lengths[:, column], indices[:, column] = join_index, len(prefixes)
            prefixes.append(Prefix(row.cache_slot, partial(embed, before), outlives_job=True))
            continue
        if before not in known:
            known[before] = len(prefixes)
            prefixes += [Prefix(CacheSlot(), partial(_embed_with_prompt, embed, before, v)) for v in vectors.each]
        lengths[:, column], indices[:, column] = join_index + prompts, known[before] + np.arange(len(prompts))
    remaining = np.add.outer(prompts, [len(row.ids) for row in rows]) - lengths
    lengths[(lengths < fewest) | (remaining == 0)] = 0
    return SharedPrefixes(lengths, indices, prefixes)


def remainder(vectors: PromptVectors, prompt: int, row: TokenisedExample, prefix_tokens: int, embed: Embed) -> Tensor:
    """Returns the word vectors `[T, D]` of a pair that follow its prefix of `prefix_tokens` tokens."""
    if vectors.deep is not None:
        return embed(row.ids)
    join_index = vectors.join_index(row)
    after = embed(row.ids[join_index:])
    return after if prefix_tokens > join_index else torch.cat([vectors.each[prompt], after])


def _embed_with_prompt(embed: Embed, before: Sequence[int], prompt: Tensor) -> Tensor:
    return torch.cat([embed(before), prompt])
