"""Linear layers with weights packed for oneDNN, which torch has beside the BLAS that it multiplies float32 with.

On processors of other makers than MKL's own that is twice as fast, and a row comes out as the same bits whatever rows
stand beside it. The operators are those to which torch's compiler turns a linear layer of a frozen model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PACKED_FOR_ROWS = 64
"""For which weights are packed; any number may come."""


class PackedLinear(nn.Module):
    """x W^T + b, `[..., in]` -> `[..., out]`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` `[out, in]`"""
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
        self._bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")
        return outputs


def pack(body: nn.Module) -> None:
    """Packs all linear layers of a float32 model on a CPU in their places; where torch cannot, leaves them."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # it says none
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    with torch.inference_mode():
        for module in list(body.modules()):
            for name, layer in list(module.named_children()):
                if (packed := _packed(layer)) is not None:
                    setattr(module, name, packed)


def _packed(layer: nn.Module) -> PackedLinear | None:
    if type(layer) is nn.Linear:
        return PackedLinear(layer.weight.detach(), _detached(layer.bias))
    if type(layer) is Conv1D:
        return PackedLinear(layer.weight.detach().T, _detached(layer.bias))
    return None


def _detached(bias: Any) -> Tensor | None:
    found: Tensor | None = None if bias is None else bias.detach()
    return found
