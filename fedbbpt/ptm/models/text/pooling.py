"""Sentence embeddings from a text encoder's hidden states: the modules of sentence-transformers, on unpadded inputs.

Source: the modules of the same names in sentence-transformers 6. Nothing is padded here, so no masks are needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


def _mean_with_weights(hidden: Tensor) -> Tensor:
    """Returns the mean with the weights 1, 2, ..., T."""
    weights = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
    return (hidden * weights[:, None]).sum(1) / weights.sum()


POOLING_MODES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda hidden: hidden[:, 0],
    "max": lambda hidden: hidden.amax(1),
    "mean": lambda hidden: hidden.mean(1),
    "mean_sqrt_len_tokens": lambda hidden: hidden.sum(1) / hidden.shape[1] ** 0.5,
    "weightedmean": _mean_with_weights,
    "lasttoken": lambda hidden: hidden[:, -1],
}
"""Functions from hidden states `[N, T, D]` to `[N, D]`, in the order in which older files combine them."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """Joins the results of one or several modes: `[N, T, D]` to `[N, modes x D]`."""

    modes: Sequence[str] = ("mean",)

    def __call__(self, hidden: Tensor) -> Tensor:
        parts = [POOLING_MODES[mode](hidden) for mode in self.modes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class Dense(nn.Module):
    """A linear layer with an activation, and with the input added to the output if `residual`."""

    def __init__(self, width: int, out: int, *, bias: bool, activation: nn.Module, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=bias)
        self.activation_function = activation
        self._adds_input = residual
        if residual and width != out:
            self.residual = nn.Linear(width, out, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the projected embeddings `[N, D]`."""
        result: Tensor = self.activation_function(self.linear(embeddings))
        if not self._adds_input:
            return result
        return result + (self.residual(embeddings) if hasattr(self, "residual") else embeddings)


class LayerNorm(nn.Module):
    """A LayerNorm over the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the normalised embeddings `[N, D]`."""
        result: Tensor = self.norm(embeddings)
        return result


class Normalize(nn.Module):
    """Scales embeddings to length 1."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the embeddings `[N, D]` at length 1."""
        return normalize(embeddings, dim=-1)
