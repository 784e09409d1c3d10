"""What a service is compared with: the same model in this process, in a loop written by hand. Needs torch.

Two loops: the ideal one, over groups of exactly one length on one thread of torch each, side by side; and the usual
one, a padded batch with a mask for each prompt on all of torch's own threads. Both read label columns only. Neither
checks, meters, plans or sends anything, and prompts are projected before the clock starts.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.backends.checkpoint import load, locate
from fedbbpt.ptm.backends.dual_encoder import LOGIT_SCALE
from fedbbpt.ptm.backends.encoding import Encoder, Row
from fedbbpt.ptm.backends.families import FAMILIES
from fedbbpt.ptm.backends.parts import take_apart
from fedbbpt.types import Injection, LatentPrompts, Precision, Scores, TaskSpec

Pairs: TypeAlias = Sequence[tuple[int, int]]
"""(prompt, row)"""


class ByHand:
    """B texts of a task, for a dual encoder, a masked or a causal language model whose label words are one token."""

    def __init__(
        self,
        model: str,
        family: str,
        task: TaskSpec,
        workload: Workload,
        *,
        threads: int,
        precision: Precision = Precision.FLOAT32,
        token_budget: int = 1024,
    ) -> None:
        torch.set_num_threads(1)
        checkpoint = load(model, locate(model), FAMILIES[family][1], family, precision)
        encoder = Encoder(checkpoint.tokenizer, checkpoint.max_tokens, causal=family == "causal-lm")
        self._threads, self._token_budget = threads, token_budget
        self._in_front = workload.injection is Injection.PREFIX
        self._rows: Sequence[Row] = encoder.rows(task, workload.texts(), workload.prompt_tokens, None)
        if family != "dual-encoder":
            _keep_columns(checkpoint.model, [word[0] for word in encoder.label_words(task)])
        self._parts = take_apart(checkpoint.model)
        self._std = float(self._parts.words.weight.std())
        with torch.inference_mode():
            ids = [torch.tensor(row.ids) for row in self._rows]
            self._words: list[Tensor] = [self._parts.words(row) for row in ids]
            self._columns = None
            if family == "dual-encoder":
                described = [torch.tensor([encoder.plain(text)]) for text in task.classes]
                self._columns = torch.cat([_unit(self._read(self._parts.words(d)).mean(1)) for d in described])
        if precision is Precision.BFLOAT16:
            self._parts = self._parts.lowered(torch.bfloat16)

    def _vectors(self, prompts: LatentPrompts) -> list[Tensor]:
        """Of each prompt, `[L, D]`."""
        initial = np.zeros((prompts.projection.tokens, self._parts.words.embedding_dim), np.float32)
        projected = project(prompts.projection, prompts.z, initial, self._std)
        return list(torch.from_numpy(projected))

    def ideal(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """A turns.Way."""
        return partial(self._ideal, self._vectors(prompts))

    def padded(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """A turns.Way."""
        return partial(self._padded, self._vectors(prompts))

    def _ideal(self, vectors: Sequence[Tensor]) -> Scores:
        lengths: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for b, row in enumerate(self._rows):
            lengths[len(row.ids) + len(vectors[0])] += [(p, b) for p in range(len(vectors))]
        batches: list[Pairs] = []
        for length, pairs in sorted(lengths.items()):
            parts = -(-len(pairs) // max(1, self._token_budget // length))
            batches += [[pairs[i] for i in part] for part in np.array_split(np.arange(len(pairs)), parts)]

        def run(pairs: Pairs) -> Tensor:
            with torch.inference_mode():
                inputs = torch.stack([self._joined(vectors[p], b) for p, b in pairs])
                return self._scores(self._read(inputs), pairs, len(vectors[0]))

        torch.set_num_threads(1)
        with ThreadPoolExecutor(self._threads) as pool:  # new threads each time: torch keeps a number for each
            found = list(pool.map(run, batches))
        return self._in_order(batches, found, len(vectors))

    def _padded(self, vectors: Sequence[Tensor]) -> Scores:
        torch.set_num_threads(self._threads)
        batches = [[(p, b) for b in range(len(self._rows))] for p in range(len(vectors))]
        found = []
        with torch.inference_mode():
            for pairs in batches:
                joined = [self._joined(vectors[p], b) for p, b in pairs]
                inputs = nn.utils.rnn.pad_sequence(joined, batch_first=True)
                mask = nn.utils.rnn.pad_sequence([one.new_ones(len(one)) for one in joined], batch_first=True)
                hidden = self._read(inputs, attention_mask=mask.long())
                found.append(self._scores(hidden, pairs, len(vectors[0]), mask))
        return self._in_order(batches, found, len(vectors))

    def _joined(self, prompt: Tensor, b: int) -> Tensor:
        """`[L + T, D]`"""
        joint = self._joint(self._rows[b])
        return torch.cat([self._words[b][:joint], prompt, self._words[b][joint:]])

    def _joint(self, row: Row) -> int:
        return row.front if self._in_front else row.slot

    def _read(self, inputs: Tensor, **mask: Tensor) -> Tensor:
        return self._parts.read(self._parts.lift(inputs), **mask)

    def _scores(self, hidden: Tensor, pairs: Pairs, prompt_tokens: int, mask: Tensor | None = None) -> Tensor:
        """`[N, K]` of `hidden` `[N, T, D]`."""
        if self._columns is not None:
            weights = hidden.new_ones(hidden.shape[:2]) if mask is None else mask
            pooled = hidden.mean(1) if mask is None else (hidden * mask[..., None]).sum(1) / weights.sum(1)[:, None]
            return LOGIT_SCALE * (_unit(pooled)[:, None] * self._columns).sum(-1)
        rows = [self._rows[b] for _, b in pairs]
        ends = [len(row.ids) - 1 if row.mask is None else row.mask for row in rows]
        places = [
            end + prompt_tokens * (row.mask is None or end >= self._joint(row))
            for end, row in zip(ends, rows, strict=True)
        ]
        read = hidden[torch.arange(len(rows)), places]
        logits: Tensor = self._parts.head(inputs_embeds=read[:, None]).logits[:, 0]
        return logits

    def _in_order(self, batches: Sequence[Pairs], found: Sequence[Tensor], prompts: int) -> Scores:
        scores = np.empty((prompts, len(self._rows), found[0].shape[1]), np.float32)
        for pairs, part in zip(batches, found, strict=True):
            for (p, b), one in zip(pairs, part.numpy(), strict=True):
                scores[p, b] = one
        return scores


def _keep_columns(model: nn.Module, ids: list[int]) -> None:
    """Of the decoder, those of the label words."""
    whole = model.get_output_embeddings()  # type: ignore[operator]  # transformers' models have it, torch's do not
    kept = nn.Linear(whole.in_features, len(ids), bias=whole.bias is not None)
    kept.weight = nn.Parameter(whole.weight[ids], requires_grad=False)
    if whole.bias is not None:
        kept.bias = nn.Parameter(whole.bias[ids], requires_grad=False)
    model.set_output_embeddings(kept)  # type: ignore[operator]  # as above


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit
