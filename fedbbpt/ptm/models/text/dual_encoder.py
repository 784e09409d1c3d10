"""Encoders without a head: a class scores by the cosine between its description and the input.

The embedding of a text is that of sentence-transformers (`sentence_encoder`), and the score is LOGIT_SCALE times the
cosine of two embeddings. A prompt is a part of the input that is pooled, like its text: a mean includes it, and the
first or the last token is that of the whole input. Where the tokenizer has special tokens, these are the first and the
last, and stay so: prompts join between them. Otherwise, the first vector of a prompt at the front is the first token.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.transformer import Transformer, copies_to_fill
from fedbbpt.types import Examples, Perturbation, TaskSpec

LOGIT_SCALE = 20.0
CACHED_TEXTS = 8192
"""Size of the cache for vectors of class descriptions."""


class DualEncoder(Transformer[Tensor]):
    """score = 20 x cosine(embedding of prompt + text, embedding of the class's description)."""

    family = "dual-encoder"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        if getattr(checkpoint.model, "pooler", None) is not None:
            checkpoint.model.pooler = None
        self._sentence = checkpoint.sentence_encoder
        self._modules = nn.Sequential(*self._sentence.modules).to(checkpoint.model.device)
        _check_widths(checkpoint, self._modules)
        # The cache holds texts, not tasks: a task that recombines known descriptions computes none of them again.
        self._encode = lru_cache(maxsize=CACHED_TEXTS)(self._encode_text)
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._ids(text))
            if tokens > self._card.max_tokens:
                what = f"a description of {tokens} tokens"
                raise InvalidTask(what, where="classes", fix=f"at most {self._card.max_tokens}")

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[TokenisedExample]:
        own_prompt = self._sentence.prompt.replace("{", "{{").replace("}", "}}")
        task = replace(task, template=own_prompt + task.template)
        return super().prepare(task, examples, prompt_tokens, perturbation)

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Names each description by its token ids, so that descriptions that the model reads alike count as one."""
        return tuple((" ".join(map(str, self._ids(text))),) for text in task.classes)

    def _columns(self, task: TaskSpec) -> Tensor:
        return torch.stack([self._encode(text) for text in task.classes])

    def _probe_columns(self) -> Tensor:
        return torch.stack([self._encode_text(text) for text in ("a", "b")])

    def _ids(self, text: str) -> list[int]:
        """Returns the tokens of a description."""
        return self._encoder.encode_text(self._sentence.prompt + text)

    def _encode_text(self, text: str) -> Tensor:
        """Returns a unit vector `[E]`."""
        ids = self._ids(text)
        inputs = self._model.apply_embedding_block(self._injector.embed_tokens(ids)[None])
        copies = copies_to_fill(len(ids))
        return self._embed(self._model.run_body(inputs.repeat(copies, 1, 1))[:1])[0]

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        return LOGIT_SCALE * (columns * self._embed(hidden)[:, None]).sum(-1)

    def _embed(self, hidden: Tensor) -> Tensor:
        """Returns the unit vectors `[N, E]` of inputs with the last hidden states `[N, T, D]`."""
        pooled = self._sentence.pooling(hidden)
        if self._sentence.modules:
            pooled = self._modules(pooled.repeat(copies_to_fill(len(pooled)), 1))[: len(pooled)]
        return _unit(pooled[:, : self._sentence.dimensions])


def _check_widths(checkpoint: Checkpoint, modules: nn.Module) -> None:
    """Raises InvalidInput if a module does not take what the one before it gives."""
    hidden = torch.zeros(1, 1, checkpoint.model.config.hidden_size, device=checkpoint.model.device)
    try:
        modules(checkpoint.sentence_encoder.pooling(hidden))
    except RuntimeError as error:
        what = f"the modules of this sentence encoder do not fit each other: {error}"
        raise InvalidInput(what, where=checkpoint.name, fix="the files as they were published") from None


def _unit(vectors: Tensor) -> Tensor:
    """Scales vectors `[..., D]` to length 1."""
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit
