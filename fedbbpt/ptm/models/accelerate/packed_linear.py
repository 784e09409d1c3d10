"""Linear layers on a CPU with weights packed for oneDNN, instead of the BLAS that torch uses for float32 (MKL).

On processors that are not Intel's this is twice as fast, and a row's result is bit-identical in any batch. The
operators are those that torch's compiler uses for a linear layer of a frozen model.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PACKED_FOR_ROWS = 64
"""Number of rows for which the layout of packed weights is optimised; inputs may have any number."""


class PackedLinear(nn.Module):
    """Computes x W^T + b, `[..., in]` -> `[..., out]`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Packs a weight `[out, in]`."""
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
        self._bias = bias
        # Some models ask for the type of a layer's weight, to convert its inputs. It has a type and no values.
        self.weight = torch.empty_like(weight, device="meta")

    def unpack(self) -> nn.Linear:
        """Returns the same layer as torch has it."""
        weight = self._packed.to_dense()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=self._bias is not None, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        if self._bias is not None:
            linear.bias = nn.Parameter(self._bias, requires_grad=False)
        return linear

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns `[..., out]` for inputs `[..., in]`."""
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")
        return outputs


def pack(body: nn.Module, run: Callable[[], object] = lambda: None) -> None:
    """Replaces all linear layers of a float32 model on a CPU by packed ones. Does nothing if torch lacks oneDNN.

    `run` runs the body on any input. If that fails, the layers are unpacked: some bodies read weights themselves.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it without types
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    with torch.inference_mode():
        _replace(body, _packed)
        try:
            run()
        except (AttributeError, TypeError, RuntimeError):
            _replace(body, lambda layer: layer.unpack() if isinstance(layer, PackedLinear) else None)


def _replace(body: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    for module in list(body.modules()):
        for name, layer in list(module.named_children()):
            if (new := make(layer)) is not None:
                setattr(module, name, new)


def _packed(layer: nn.Module) -> PackedLinear | None:
    if type(layer) is nn.Linear:
        return PackedLinear(layer.weight.detach(), _detached(layer.bias))
    if type(layer) is Conv1D:
        return PackedLinear(layer.weight.detach().T, _detached(layer.bias))
    return None


def _detached(bias: Any) -> Tensor | None:
    found: Tensor | None = None if bias is None else bias.detach()
    return found
