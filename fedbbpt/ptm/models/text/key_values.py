"""Keys and values of what a causal model has read, and going on from them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from fedbbpt.ptm.models.text.split_model import SplitModel

KeyValues: TypeAlias = tuple[tuple[Tensor, Tensor], ...]
"""Each layer's keys and values, both `[N, heads, T, width]`. Never changed once it is there."""

_ROTATED_BY_LENGTH = "dynamic", "longrope"
"""Kinds of rotary positions whose keys depend on how long the whole input is."""


def forward_with_cache(model: SplitModel, inputs: Tensor, past: KeyValues = ()) -> tuple[Tensor, KeyValues]:
    """The last hidden states `[N, T, D]` of what follows on `past`, and the past with it."""
    cache = DynamicCache()
    layers: list[Any] = cache.layers
    layers += [_layer(keys, values) for keys, values in past]
    hidden = model.run_body(inputs, cache=cache, use_cache=True)
    return hidden, tuple((layer.keys, layer.values) for layer in layers)


def _layer(keys: Tensor, values: Tensor) -> Any:
    """One of a cache, which takes what it is given as it is: `update` would copy it."""
    layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]  # it says none
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    layer.dtype, layer.device = keys.dtype, keys.device
    return layer


def stack(pasts: Sequence[KeyValues]) -> KeyValues:
    """Those of N inputs `[1, heads, T, width]`, all of one length, as one `[N, heads, T, width]`."""
    if all(past is pasts[0] for past in pasts):
        return tuple((k.expand(len(pasts), -1, -1, -1), v.expand(len(pasts), -1, -1, -1)) for k, v in pasts[0])
    layers = zip(*pasts, strict=True)
    return tuple((torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in layers)


def byte_count(past: KeyValues) -> int:
    return sum(each.nbytes for layer in past for each in layer)


def supports_key_values(model: SplitModel, words: Tensor) -> bool:
    """Whether the model, going on behind half of `words` `[1, T, D]`, ends where it does in one go."""
    if any(kind in str(getattr(model.body.config, "rope_parameters", None)) for kind in _ROTATED_BY_LENGTH):
        return False
    first, second = (model.apply_embedding_block(half) for half in words.chunk(2, dim=1))
    try:
        whole = model.run_body(model.apply_embedding_block(words))
        _, past = forward_with_cache(model, first)
        hidden, _ = forward_with_cache(model, second, past)
        return torch.allclose(hidden, whole[:, first.shape[1] :], rtol=1e-3, atol=1e-3)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False


def layer_shape(model: SplitModel, words: Tensor) -> tuple[int, int, int] | None:
    """(layers, heads, width) of keys and values; None where layers differ."""
    _, past = forward_with_cache(model, model.apply_embedding_block(words))
    shapes = {(each.shape[1], each.shape[3]) for layer in past for each in layer}
    (heads, width), *others = shapes
    return None if others else (len(past), heads, width)
