"""Linear layers on a CPU with weights packed for oneDNN, instead of the BLAS that torch uses for float32 (MKL).

On processors that are not Intel's this is twice as fast, and a row's result is bit-identical in any batch. The
operators are those that torch's compiler uses for a linear layer of a frozen model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PACKED_FOR_ROWS = 64
"""Number of rows for which the layout of packed weights is optimised; inputs may have any number."""


class PackedLinear(nn.Module):
    """Computes x W^T + b, `[..., in]` -> `[..., out]`."""

    weight = None
    """Some models convert inputs to the type of `weight`, if it is a tensor."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Packs a weight `[out, in]`."""
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
        self._bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns `[..., out]` for inputs `[..., in]`."""
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")
        return outputs


def pack(body: nn.Module) -> None:
    """Replaces all linear layers of a float32 model on a CPU by packed ones. Does nothing if torch lacks oneDNN."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it without types
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
