"""Where causal pairs are cut in two, so that what stands before the cut is computed once for all that share it.

Behind the prompt where the row's own text comes later, since all rows share what stands before; else before the prompt,
since all prompts share the row. Which of both, hangs on the pair alone and never on what else is asked, and so do the
bits of its scores. The tokens before the cut count in the first micro-batch of a job that needs them, also where a row
was read for an earlier job and is remembered: what a job costs hangs on what it asks, and not on what others did.
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


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    lengths: Indices
    """Of what stands before the cut, `[P, B]`; 0: the pair is not cut."""
    numbers: Indices
    """Of the start of each pair, `[P, B]`."""
    starts: Sequence[Prefix]

    def of(self, batch: MicroBatch) -> list[Prefix]:
        """Those of its N pairs; empty where they are not cut."""
        if not len(batch.rows) or not self.lengths[batch.prompts[0], batch.rows[0]]:
            return []
        return [self.starts[number] for number in self.numbers[batch.prompts, batch.rows]]

    def counted(self, batches: Sequence[MicroBatch]) -> tuple[MicroBatch, ...]:
        """With the tokens of those starts that have to be read, each once."""
        unread = [start.lasting or start.slot.key_values is None for start in self.starts]
        counted = []
        for batch in batches:
            own = self.numbers[batch.prompts, batch.rows][: len(self.of(batch))]
            tokens = 0
            for number, length in zip(own.tolist(), self.lengths[batch.prompts, batch.rows].tolist(), strict=False):
                tokens += length * unread[number]
                unread[number] = False
            counted.append(replace(batch, tokens=batch.tokens + tokens))
        return tuple(counted)


def find_shared_prefixes(
    vectors: PromptVectors, rows: Sequence[TokenisedExample], words: Callable[[Sequence[int]], Tensor], *, fewest: int
) -> SharedPrefixes:
    """Of all pairs. What has fewer than `fewest` tokens before the cut, or none behind it, stays whole."""
    prompts = np.array([len(prompt) for prompt in vectors.each], np.int64)
    lengths = np.zeros((len(prompts), len(rows)), np.int64)
    numbers = np.zeros_like(lengths)
    if vectors.deep is not None:
        pasts = [tuple((keys[None], values[None]) for keys, values in prompt) for prompt in vectors.deep]
        starts = [Prefix(CacheSlot(past), partial(words, ())) for past in pasts]
        return SharedPrefixes(lengths + prompts[:, None], numbers + np.arange(len(starts))[:, None], starts)
    if vectors.injection not in (Injection.PREFIX, Injection.PLACE):
        return SharedPrefixes(lengths, numbers, ())
    starts, known = [], {}
    for column, row in enumerate(rows):
        joint = vectors.join_index(row)
        before = row.ids[:joint]
        if joint > row.text_index:
            lengths[:, column], numbers[:, column] = joint, len(starts)
            starts.append(Prefix(row.cache_slot, partial(words, before), lasting=True))
            continue
        if before not in known:
            known[before] = len(starts)
            starts += [Prefix(CacheSlot(), partial(_prefix_vectors, words, before, prompt)) for prompt in vectors.each]
        lengths[:, column], numbers[:, column] = joint + prompts, known[before] + np.arange(len(prompts))
    behind = np.add.outer(prompts, [len(row.ids) for row in rows]) - lengths
    lengths[(lengths < fewest) | (behind == 0)] = 0
    return SharedPrefixes(lengths, numbers, starts)


def remainder(
    vectors: PromptVectors, prompt: int, row: TokenisedExample, before: int, words: Callable[[Sequence[int]], Tensor]
) -> Tensor:
    """What stands behind the cut of a pair `[T, D]`, with `before` tokens before it."""
    if vectors.deep is not None:
        return words(row.ids)
    joint = vectors.join_index(row)
    behind = words(row.ids[joint:])
    return behind if before > joint else torch.cat([vectors.each[prompt], behind])


def _prefix_vectors(words: Callable[[Sequence[int]], Tensor], before: Sequence[int], prompt: Tensor) -> Tensor:
    return torch.cat([words(before), prompt])
