"""Compiles a model's layers with torch, which fuses small steps into one kernel: sums with LayerNorms, activations.

On a GPU these steps are limited by memory bandwidth and take a quarter of the time in bfloat16. Matrix products and
attention still use the libraries' kernels. The layers of a model have one structure, so that one compilation serves all
of them, for inputs of any number and length.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

TUNED: dict[str, Any] = {"coordinate_descent_tuning": True}
"""The compiler tries several forms of small kernels and keeps the fastest."""


def fuse(body: Any) -> Callable[[], None]:
    """Replaces the layers by ones that are compiled at their first call; returns a function that undoes this.

    Raises:
        LookupError: The body has no list of layers.
    """
    layers = _layers(body)
    plain = list(layers)
    for index, layer in enumerate(plain):
        compiled: Any = torch.compile(layer, dynamic=True, options=TUNED)
        layers[index] = compiled

    def undo() -> None:
        for index, layer in enumerate(plain):
            layers[index] = layer

    return undo


def _layers(body: Any) -> nn.ModuleList:
    depth = body.config.num_hidden_layers
    for part in body.modules():
        if isinstance(part, nn.ModuleList) and len(part) == depth:
            return part
    raise LookupError("no list of layers")
