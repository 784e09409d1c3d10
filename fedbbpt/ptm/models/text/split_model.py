"""Splits a transformer at two seams, word embeddings + embedding block | body | head, so that prompts can join between.

Each part runs the architecture's own code. Stand-ins take the place of the other parts and pass on hidden states that
were computed before. `self_test` verifies at start-up that the parts together give the logits of the whole model.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BodyOutput

from fedbbpt.errors import InvalidExamples


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model in parts; inputs and outputs of each are float32."""

    word_embeddings: nn.Embedding
    embedding_block: nn.Module | None
    """Everything between word embeddings and first layer (positions, token types, LayerNorm), if it ends in a
    LayerNorm; None if the body does this by itself."""
    body: Any
    """The layers: called as transformers' base model, with `inputs_embeds`."""
    head: Any
    """The model with a stand-in for the body; None if it has no head."""
    dtype: torch.dtype = torch.float32
    """Precision of the body's weights."""
    turns: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while the body runs: a lock, if threads must take turns."""

    def apply_embedding_block(self, words: Tensor, segments: Tensor | None = None) -> Tensor:
        """Returns the inputs of the first layer for word vectors `[N, T, D]`.

        `segments`: int64 `[N, T]`, the segment of each token (transformers' `token_type_ids`); None: all 0.

        Raises:
            InvalidExamples: There are segments, but the model has no embedding block that takes them.
        """
        if self.embedding_block is None:
            if segments is not None:
                raise InvalidExamples(
                    "the model has segments for second texts, but only within its layers, where they cannot be set",
                    where="text_pair",
                    fix="a template without a separator token between the two texts, or another model",
                )
            return words
        types = {} if segments is None else {"token_type_ids": segments}
        embedded: Tensor = self.embedding_block(input_ids=None, inputs_embeds=words, **types)
        return embedded

    def run_body(self, inputs: Tensor, **cached: Any) -> Tensor:
        """Returns the last hidden states `[N, T, D]` for inputs of the first layer `[N, T, D]`.

        `cached`: transformers' arguments for a cache of keys and values.
        """
        inputs = inputs.to(self.dtype)
        if self.embedding_block is None:
            inputs = inputs.clone()  # some bodies scale word vectors in place
        with self.turns:
            hidden: Tensor = self.body(inputs_embeds=inputs, **cached).last_hidden_state
        return hidden.float()

    def with_dtype(self, dtype: torch.dtype) -> "SplitModel":
        """Converts the body's weights in place.

        Word embeddings and head keep their precision: they take little time, and scores are sensitive to them.
        """
        for weight in self._body_weights():  # not its buffers: the frequencies of rotary positions are among them
            weight.data = weight.data.to(dtype)
        return replace(self, dtype=dtype)

    def with_body(self, body: Any) -> "SplitModel":
        """Replaces the body by one that has copies of its weights, and frees torch's."""
        for weight in self._body_weights():
            weight.data = weight.data.new_empty(0)
        return replace(self, body=body)

    def _body_weights(self) -> Iterator[nn.Parameter]:
        """Yields the weights of the body that word embeddings and head do not share."""
        shared = set(map(id, (*self.word_embeddings.parameters(), *(self.head.parameters() if self.head else ()))))
        return (weight for weight in self.body.parameters() if id(weight) not in shared)


def split_model(model: Any) -> SplitModel:
    """Splits a model, which is modified. The head keeps the body's pooler, if there is one."""
    words, name = model.get_input_embeddings(), _body_name(model)
    body, head = (getattr(model, name), model) if name else (model, None)
    if head is not None:
        setattr(model, name, _BodyStandIn(body))
    if getattr(body, "pooler", None) is not None:
        body.pooler = _NoPooler()
    turns: AbstractContextManager[Any] = Lock() if _sets_frequencies(body) else nullcontext()
    return SplitModel(words, _take_embedding_block(body, words.embedding_dim), body, head, turns=turns)


def _sets_frequencies(body: nn.Module) -> bool:
    """Tells whether the body's rotary positions set their frequencies anew for each input, by its length.

    They keep them in the module, where another thread's input of another length would change them.
    """
    kinds = [getattr(module, "rope_type", None) for module in body.modules()]
    each = [kind for one in kinds for kind in (one.values() if isinstance(one, Mapping) else [one])]
    return any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in each)


def _body_name(model: Any) -> str:
    """Returns the name of the attribute that is the model's body; empty if the model has no head."""
    if hasattr(model, model.base_model_prefix):
        return str(model.base_model_prefix)
    # Some text parts of multimodal models name the prefix of the whole model.
    bodies = [name for name, part in model.named_children() if isinstance(part, PreTrainedModel)]
    return bodies[0] if len(bodies) == 1 else ""


def _take_embedding_block(body: Any, width: int) -> nn.Module | None:
    """Takes the embedding block out of the body and leaves a stand-in.

    Returns None, and leaves the body as it was, if no block ends in a LayerNorm or the block cannot run alone.
    """
    block = getattr(body, "embeddings", None)
    if not isinstance(block, nn.Module) or not any(isinstance(part, nn.LayerNorm) for part in block.children()):
        return None
    # An odd number of tokens: Longformer fills inputs up to a multiple of its window.
    probe = torch.linspace(-1, 1, 7 * width, device=body.device).reshape(1, 7, width)
    try:
        with torch.inference_mode():
            whole = body(inputs_embeds=probe.clone()).last_hidden_state
            body.embeddings = _BlockStandIn()
            embedded = block(input_ids=None, inputs_embeds=probe)
            same = torch.allclose(body(inputs_embeds=embedded).last_hidden_state, whole, rtol=1e-3, atol=1e-3)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        same = False
    if not same:
        body.embeddings = block
    return block if same else None


class _BodyStandIn(nn.Module):
    """Passes on hidden states that the body has computed before, and adds the body's pooler."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        for name, value in vars(body).items():  # FalconH1's head reads a multiplier of the body
            if isinstance(value, int | float) and not name.startswith("_") and name != "training":
                setattr(self, name, value)
        self.pooler = getattr(body, "pooler", None)
        self.pooler_activation = getattr(body, "pooler_activation", None)
        """Only of ALBERT, whose pooler is a linear layer for the first hidden state."""

    @property
    def decoder(self) -> "_BodyStandIn":
        """OPT's head calls the decoder within the body, which wraps nothing else."""
        return self

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BodyOutput:
        pooled = None
        if self.pooler_activation is not None and self.pooler is not None:
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(inputs_embeds)
        return _StandInOutput(last_hidden_state=inputs_embeds, pooler_output=pooled)


class _StandInOutput(BodyOutput):
    """Has None for every output that a head passes on without reading it, such as the choices of experts' routers."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _NoPooler(nn.Module):
    """Returns what it receives. Some bodies call their pooler without asking whether there is one."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden


class _BlockStandIn(nn.Module):
    """Passes on the output of the embedding block, which it recognises by its shape: architectures name it freely."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        found = next((one for one in (*inputs, *named.values()) if isinstance(one, Tensor) and one.ndim == 3), None)
        if found is None:
            raise LookupError("the embedding block is called without word vectors")
        return found
