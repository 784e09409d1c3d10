"""Encoders without a head: a class scores by the cosine between its description and the input."""

from functools import lru_cache

import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.ptm.models.text.transformer import Transformer, copies_to_fill
from fedbbpt.types import TaskSpec

LOGIT_SCALE = 20.0
CACHED_TEXTS = 8192
"""Size of the cache for vectors of class descriptions."""


class DualEncoder(Transformer[Tensor]):
    """score = 20 x cosine(mean-pooled prompt + text, mean-pooled description of the class)."""

    family = "dual-encoder"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        if getattr(checkpoint.model, "pooler", None) is not None:
            checkpoint.model.pooler = None
        # The cache holds texts, not tasks: a task that recombines known descriptions computes none of them again.
        self._encode = lru_cache(maxsize=CACHED_TEXTS)(self._encode_text)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._encoder.encode_text(text))
            if tokens > self._card.max_tokens:
                what = f"a description of {tokens} tokens"
                raise InvalidTask(what, where="classes", fix=f"at most {self._card.max_tokens}")

    def columns(self, task: TaskSpec) -> frozenset[str]:
        """Names each description by its token ids, so that descriptions that the model reads alike count as one."""
        return frozenset(" ".join(map(str, self._encoder.encode_text(text))) for text in task.classes)

    def _columns(self, task: TaskSpec) -> Tensor:
        return torch.stack([self._encode(text) for text in task.classes])

    def _probe_columns(self) -> Tensor:
        return torch.stack([self._encode_text(text) for text in ("a", "b")])

    def _encode_text(self, text: str) -> Tensor:
        """Returns a unit vector `[D]`."""
        ids = self._encoder.encode_text(text)
        inputs = self._model.apply_embedding_block(self._injector.embed_tokens(ids)[None])
        copies = copies_to_fill(len(ids))
        return _unit(self._model.run_body(inputs.repeat(copies, 1, 1))[0].mean(0))

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        return LOGIT_SCALE * (columns * _unit(hidden.mean(1))[:, None]).sum(-1)


def _unit(vectors: Tensor) -> Tensor:
    """Scales vectors `[..., D]` to length 1."""
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit
