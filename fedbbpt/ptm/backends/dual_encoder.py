"""Encoders without a head: a class scores by how near its description lies to the input."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.transformer import FEWEST_TOKENS, Transformer
from fedbbpt.ptm.template import forbid_mask, parse
from fedbbpt.types import TaskSpec

LOGIT_SCALE = 20.0


class DualEncoder(Transformer[Tensor]):
    """score = 20 x cosine(mean-pooled prompt + text, mean-pooled description of the class)."""

    family = "dual-encoder"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        if getattr(checkpoint.model, "pooler", None) is not None:
            checkpoint.model.pooler = None
        self._encode_classes = lru_cache(maxsize=64)(self._encode)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._encoder.plain(text))
            if tokens > self._card.max_tokens:
                what = f"a description of {tokens} tokens"
                raise InvalidTask(what, where="classes", fix=f"at most {self._card.max_tokens}")

    def _columns(self, task: TaskSpec) -> Tensor:
        return self._encode_classes(task.classes)

    def _probe_columns(self) -> Tensor:
        return self._encode(("a", "b"))

    def _encode(self, texts: tuple[str, ...]) -> Tensor:
        """Unit vectors `[K, D]`."""
        vectors = []
        for text in texts:
            ids = self._encoder.plain(text)
            inputs = self._parts.lift(self._entrance.words(ids)[None]).repeat(-(-FEWEST_TOKENS // len(ids)), 1, 1)
            vectors.append(_unit(self._parts.read(inputs)[0].mean(0)))
        return torch.stack(vectors)

    def _read(self, hidden: Tensor, positions: Sequence[int], columns: Tensor) -> Tensor:
        return LOGIT_SCALE * (columns * _unit(hidden.mean(1))[:, None]).sum(-1)


def _unit(vectors: Tensor) -> Tensor:
    """`[..., D]`"""
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit
