"""Keys and values of a causal model's attention layers, and forward passes that continue from them.

A causal model's keys and values of a token depend on the tokens before it only. Once they are computed for a prefix,
any continuation of the prefix can be computed from them, without a second pass over the prefix.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from fedbbpt.ptm.models.text.agreement import difference
from fedbbpt.ptm.models.text.split_model import SplitModel

KeyValues: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""Each layer's keys and values, both `[N, heads, T, width]`. They are shared between passes and never modified."""

_LENGTH_DEPENDENT_ROPE = "dynamic", "longrope"
"""Rotary position embeddings whose keys depend on the length of the whole input, so that prefixes cannot be reused."""


def forward_with_cache(model: SplitModel, inputs: Tensor, past: KeyValues = ()) -> tuple[Tensor, KeyValues]:
    """Runs the body on `inputs` `[N, T, D]`, which follow the tokens whose keys and values are `past`.

    Returns:
        The last hidden states `[N, T, D]` of the inputs, and the keys and values of past and inputs together.
    """
    cache = DynamicCache()
    layers: list[Any] = cache.layers
    layers += [_cache_layer(keys, values) for keys, values in past]
    hidden = model.run_body(inputs, cache=cache, use_cache=True)
    return hidden, tuple((layer.keys, layer.values) for layer in layers)


def _cache_layer(keys: Tensor, values: Tensor) -> Any:
    """Returns a layer of transformers' cache that holds these tensors themselves: its `update` would copy them."""
    layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]  # transformers leaves it without types
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    layer.dtype, layer.device = keys.dtype, keys.device
    return layer


def stack(pasts: Sequence[KeyValues]) -> KeyValues:
    """Joins the keys and values of N inputs of one length, `[1, heads, T, width]` each, to `[N, heads, T, width]`."""
    if all(past is pasts[0] for past in pasts):
        return tuple((k.expand(len(pasts), -1, -1, -1), v.expand(len(pasts), -1, -1, -1)) for k, v in pasts[0])
    layers = zip(*pasts, strict=True)
    return tuple((torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in layers)


def byte_count(past: KeyValues) -> int:
    """Returns the bytes that keys and values take."""
    return sum(each.nbytes for layer in past for each in layer)


def supports_reuse(model: SplitModel, words: Tensor) -> bool:
    """Tells whether the model can continue from keys and values, by computing `words` `[1, T, D]` in two halves.

    The hidden states of the second half must be those of one pass over all words.
    """
    if any(kind in str(getattr(model.body.config, "rope_parameters", None)) for kind in _LENGTH_DEPENDENT_ROPE):
        return False
    first, second = (model.apply_embedding_block(half) for half in words.chunk(2, dim=1))
    try:
        whole = model.run_body(model.apply_embedding_block(words))
        _, past = forward_with_cache(model, first)
        hidden, _ = forward_with_cache(model, second, past)
        return difference(hidden, whole[:, first.shape[1] :]) is None
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False


def layer_shape(model: SplitModel, words: Tensor) -> tuple[int, int, int] | None:
    """Returns (layers, heads, width) of the model's keys and values; None if its layers differ in shape."""
    _, past = forward_with_cache(model, model.apply_embedding_block(words))
    shapes = {(each.shape[1], each.shape[3]) for layer in past for each in layer}
    (heads, width), *others = shapes
    return None if others else (len(past), heads, width)
