"""Stitches the auxiliary model's cell to what is below it: an affine map makes the states that the cell expects.

If layers are left out, the cell gets states of another kind than in the full model: a shift of their mean alone changes
the probabilities of all words, and a prefix tuned on such states is wrong for the full model. The map from the states
below the cell to those at the same layer of the full model is fitted by weighted ridge regression, without labels
(model stitching, arXiv 2106.07682).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedbbpt.whitebox.optimise import reproducible
from fedbbpt.whitebox.prefix import prefix_cache
from fedbbpt.whitebox.sequences import AnsweredExample, Batch, pad_batch

NAME = "stitch"
"""Name of the map among the modules of the cell's first layer."""
_RIDGE = 0.01
"""The penalty on the map's entries, in units of the median squared sum of an input coordinate."""
_BATCH = 16


def add_stitch(layer: nn.Module, width: int) -> None:
    """Puts an affine map, at first the identity, in front of a decoder layer."""
    stitch = nn.Linear(width, width)
    with torch.no_grad():
        stitch.weight.copy_(torch.eye(width))
        stitch.bias.zero_()
    layer.add_module(NAME, stitch)
    layer.register_forward_pre_hook(lambda module, inputs: (stitch(inputs[0]), *inputs[1:]))


def fit_stitch(
    full: Any,
    full_layer: nn.Module,
    small: Any,
    small_layer: nn.Module,
    sequences: Sequence[AnsweredExample],
    prefixes: tuple[Tensor, Tensor],
) -> None:
    """Fits the map in front of `small_layer` to the states that `full_layer` gets.

    The positions that predict the answer have together the weight of all others, since the prefix acts there.

    Args:
        full: The full model.
        full_layer: The layer of the full model with the weights of `small_layer`.
        small: The auxiliary model.
        small_layer: The first layer of its cell, with a map from `add_stitch`.
        sequences: Examples of the task; their labels have no effect.
        prefixes: The initial prefixes of both models, which are part of all their inputs.
    """
    found, wanted, weights = [], [], []
    with reproducible(0), torch.no_grad():
        for start in range(0, len(sequences), _BATCH):
            batch = pad_batch(sequences[start : start + _BATCH])
            found.append(_states(small, small_layer, batch, prefixes[1]))
            wanted.append(_states(full, full_layer, batch, prefixes[0]))
            weights.append(_weights(batch))
        weight, bias = _ridge(torch.cat(found).double(), torch.cat(wanted).double(), torch.cat(weights).double())
        stitch = getattr(small_layer, NAME)
        stitch.weight.copy_(weight)
        stitch.bias.copy_(bias)


def _states(model: Any, layer: nn.Module, batch: Batch, prefix: Tensor) -> Tensor:
    """Returns the states `[N, D]` of the batch's tokens in front of a layer, before its stitch."""
    captured: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]), prepend=True)
    count = len(batch.ids)
    mask = torch.cat([torch.ones(count, prefix.shape[3], dtype=torch.long), batch.valid.long()], dim=1)
    model.eval().base_model(input_ids=batch.ids, attention_mask=mask, cache=prefix_cache(prefix, count), use_cache=True)
    hook.remove()
    return captured[0][batch.valid]


def _weights(batch: Batch) -> Tensor:
    """Returns the weight of each token: 1, and the sequence's length more where an answer of one token is predicted."""
    predicts = torch.zeros_like(batch.answer)
    predicts[:, :-1] = batch.answer[:, 1:]
    share = batch.valid.sum(1, keepdim=True) / predicts.sum(1, keepdim=True)
    return (1 + predicts * share)[batch.valid]


def _ridge(inputs: Tensor, outputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the weight `[D, D]` and the bias `[D]` of the affine map from inputs `[N, D]` to outputs `[N, D]`."""
    rows = weights[:, None] / weights.sum()
    from_mean, to_mean = (rows * inputs).sum(0), (rows * outputs).sum(0)
    centred, targets = (inputs - from_mean) * rows.sqrt(), (outputs - to_mean) * rows.sqrt()
    gram = centred.T @ centred
    penalty = _RIDGE * gram.diagonal().median() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram + penalty, centred.T @ targets).T
    return weight, to_mean - weight @ from_mean
