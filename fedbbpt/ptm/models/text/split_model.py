"""A transformer taken apart at its two seams: embeddings | body | head.

Hidden states are handed from part to part by stand-ins, so that every architecture's own code computes each part. That
the parts together give what the whole gave is measured, not believed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BodyOutput

from fedbbpt.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class SplitModel:
    """`block` is what stands between word embeddings and the first layer where that ends in a LayerNorm (positions,
    token types, the LayerNorm); None where the body does what there is of it. `head` is None where there is none."""

    word_embeddings: nn.Embedding
    embedding_block: nn.Module | None
    body: Any
    head: Any
    dtype: torch.dtype = torch.float32
    """What torch's body computes in; all that goes in and comes out is float32."""

    def apply_embedding_block(self, words: Tensor) -> Tensor:
        """What word embeddings `[N, T, D]` are behind the embedding block."""
        if self.embedding_block is None:
            return words
        embedded: Tensor = self.embedding_block(input_ids=None, inputs_embeds=words)
        return embedded

    def run_body(self, inputs: Tensor, **cached: Any) -> Tensor:
        """The body's last hidden states `[N, T, D]` of what enters its first layer."""
        hidden: Tensor = self.body(inputs_embeds=inputs.to(self.dtype), **cached).last_hidden_state
        return hidden.float()

    def with_dtype(self, dtype: torch.dtype) -> "SplitModel":
        """Changes the body. Words and heads stay as they are: they take little time, and scores hang on them."""
        for weight in self._body_weights():  # and no buffers: the frequencies of rotary positions are among them
            weight.data = weight.data.to(dtype)
        return replace(self, dtype=dtype)

    def with_body(self, body: Any) -> "SplitModel":
        """Lets the weights of torch's body go, which are in the other one."""
        for weight in self._body_weights():
            weight.data = weight.data.new_empty(0)
        return replace(self, body=body)

    def _body_weights(self) -> Iterator[nn.Parameter]:
        """Those that are neither the words' nor the head's as well."""
        kept = set(map(id, (*self.word_embeddings.parameters(), *(self.head.parameters() if self.head else ()))))
        return (weight for weight in self.body.parameters() if id(weight) not in kept)


def split_model(model: Any) -> SplitModel:
    """Changes the model. Its body ends without a pooler; one that the head needs is kept in the head."""
    words, body = model.get_input_embeddings(), model.base_model
    head = None if body is model else model
    if head is not None:
        setattr(model, model.base_model_prefix, _BodyStandIn(getattr(body, "pooler", None)))
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return SplitModel(words, _take_embedding_block(body, words.embedding_dim), body, head)


def whole_model_logits(model: Any, name: str, probe: Tensor) -> Tensor | None:
    """The whole model's logits, None where it has no head. Raises InvalidInput where it takes no vectors."""
    try:
        with torch.inference_mode():
            return getattr(model(inputs_embeds=probe), "logits", None)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise InvalidInput(f"it takes no vectors: {error}", where=name, fix="another model") from None


def _take_embedding_block(body: Any, width: int) -> nn.Module | None:
    """The body's embedding block, with a stand-in left in its place; None, and the body as it was, where it has none
    that ends in a LayerNorm and can be asked alone."""
    block = getattr(body, "embeddings", None)
    if not isinstance(block, nn.Module) or not any(isinstance(part, nn.LayerNorm) for part in block.children()):
        return None
    probe = torch.linspace(-1, 1, 8 * width, device=body.device).reshape(1, 8, width)
    try:
        with torch.inference_mode():
            whole = body(inputs_embeds=probe).last_hidden_state
            body.embeddings = _BlockStandIn()
            embedded = block(input_ids=None, inputs_embeds=probe)
            same = torch.allclose(body(inputs_embeds=embedded).last_hidden_state, whole, rtol=1e-3, atol=1e-3)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError):
        same = False
    if not same:
        body.embeddings = block
    return block if same else None


class _BodyStandIn(nn.Module):
    """Hands on what the body has computed before, and adds the body's pooler."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    @property
    def decoder(self) -> "_BodyStandIn":
        """OPT's head asks the decoder within the body, which wraps nothing else."""
        return self

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BodyOutput:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BodyOutput(last_hidden_state=inputs_embeds, pooler_output=pooled)


class _BlockStandIn(nn.Module):
    """Hands on what the embedding block has computed before; architectures name and order their arguments freely."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return next(one for one in (*inputs, *named.values()) if isinstance(one, Tensor) and one.ndim == 3)
