"""Linear layers with weights packed for oneDNN, so that a loop on a CPU computes them as fast as the service does.

The benchmark shows what batching without padding gains. With torch's own linear layers in the loop, the ratio would
mix that with the gain of the packed layers. The service's own are not imported: a change there must show in the ratio.
"""

from typing import Any

import torch
from torch import Tensor, nn

ROWS = 64
"""Number of rows that the packing is tuned for. Any number of rows may be multiplied."""


class PackedLinear(nn.Module):
    """Computes x W^T + b, `[..., in]` to `[..., out]`."""

    def __init__(self, layer: nn.Linear) -> None:
        """Packs the weights of `layer`."""
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), ROWS)
        self._bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiplies `inputs` `[..., in]`."""
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self._bias, "none", [], "")
        return outputs


def pack_linear_layers(model: Any) -> None:
    """Replaces the float32 linear layers of a model on a CPU.

    Without oneDNN nothing changes. Other kinds of layers, such as GPT-2's Conv1D, stay as they are.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch gives it no types
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    with torch.inference_mode():
        for module in list(model.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear:
                    setattr(module, name, PackedLinear(layer))
