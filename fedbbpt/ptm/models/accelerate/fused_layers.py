"""A model's layers compiled by torch, which does several small steps in one kernel: sums with LayerNorms, activations.

On a GPU these steps wait for memory, and take a quarter of the time in bfloat16. Matrix products and attention stay
those of the libraries. The layers of a model are alike, so that one compilation serves all of them, and inputs of any
number and length.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

TUNED: dict[str, Any] = {"coordinate_descent_tuning": True}
"""Small kernels are measured in several forms."""


def fuse(body: Any) -> Callable[[], None]:
    """Has the layers compiled when they are first asked; returns what undoes it. Raises LookupError where there is no
    list of layers."""
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
