"""Trains a causal language model or its prefix, as FedSP does (arXiv 2311.06805); implements interfaces.WhiteBox.

At the owner this is the full model, at a client the auxiliary one. Both stages minimise -log p(answer | prefix, input),
the mean over the answer's tokens: `align` trains the weights, `tune` the prefix. The prefix is keys and values that
each layer's attention sees before those of the input (prefix tuning, arXiv 2101.00190).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.types import Arrays, Stage
from fedbbpt.whitebox import auxiliary
from fedbbpt.whitebox.optimise import minimise, reproducible
from fedbbpt.whitebox.sequences import AnsweredExample, Batch, draw_batches


def prefix_cache(prefix: Tensor, count: int) -> DynamicCache:
    """Returns a cache with the prefix `[layers, 2, heads, L, width]` for each of `count` sequences."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(prefix.unbind(0)):
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
    return cache


def answer_loss(model: Any, prefix: Tensor, batch: Batch) -> Tensor:
    """Returns the mean cross-entropy of the answers' tokens, in nats."""
    count, tokens = len(batch.ids), prefix.shape[3]
    mask = torch.cat([torch.ones(count, tokens, dtype=torch.long), batch.valid.long()], dim=1)
    hidden = model.base_model(
        input_ids=batch.ids, attention_mask=mask, cache=prefix_cache(prefix, count), use_cache=True
    ).last_hidden_state
    is_answer = batch.answer[:, 1:]
    logits = model.get_output_embeddings()(hidden[:, :-1][is_answer])
    return nn.functional.cross_entropy(logits, batch.ids[:, 1:][is_answer])


class CausalWhiteBox:
    """A model with the examples that it is trained on."""

    def __init__(self, model: Any, space: DeepSpace, sequences: Sequence[AnsweredExample]) -> None:
        """Raises InvalidInput if the prefix does not fit the model."""
        self._model, self._space, self._sequences = model, space, sequences
        self._initial: Arrays | None = None
        """The initial weights, once they have changed."""
        self._depth = model.config.num_hidden_layers
        probe = torch.zeros(1, 1, dtype=torch.long)
        with torch.inference_mode():
            keys = model.eval().base_model(input_ids=probe, use_cache=True).cache.layers[0].keys
        shape = (space.layers, keys.shape[1], keys.shape[3])
        if space.layers % self._depth or shape != (space.layers, space.heads, space.width):
            what = f"prefixes of {space.layers} layers, {space.heads} heads and width {space.width}"
            fix = f"{self._depth} layers, {shape[1]} heads and width {shape[2]}, as the model has"
            raise InvalidInput(what, where="task.prompt", fix=fix)

    @property
    def weight(self) -> float:
        return float(len(self._sequences))

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        if self._initial is None:
            self._initial = auxiliary.weights(self._model)
        self._load(weights)
        prefix = self._prefix(z)
        self._model.requires_grad_(True)
        self._minimise(list(self._model.parameters()), prefix, stage, seed)
        return auxiliary.weights(self._model)

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        self._load(weights)
        prefix = nn.Parameter(self._prefix(z))
        self._model.requires_grad_(False)
        losses = self._minimise([prefix], prefix, stage, seed)
        return self._to_z(prefix.detach()), float(np.mean(losses))

    def _minimise(self, parameters: list[nn.Parameter], prefix: Tensor, stage: Stage, seed: int) -> list[float]:
        drawn = draw_batches(self._sequences, stage.batch_size, seed)
        self._model.train()
        with reproducible(seed):
            return minimise(parameters, lambda: answer_loss(self._model, prefix, next(drawn)), stage)

    def _load(self, weights: Arrays) -> None:
        if weights or self._initial is not None:
            auxiliary.load_weights(self._model, weights or self._initial or {})

    def _prefix(self, z: npt.NDArray[np.float32]) -> Tensor:
        """Returns the prefix `[depth, 2, heads, L, width]` of z.

        If the model is shallower than the prompt, its layer i gets the mean of the prompt's layers i, i + depth,
        i + 2 depth and so on.
        """
        prefix = torch.from_numpy(self._space.prefixes(z[None])[0].copy())
        return prefix.reshape(-1, self._depth, *prefix.shape[1:]).mean(0)

    def _to_z(self, prefix: Tensor) -> npt.NDArray[np.float32]:
        """Returns the z of a prefix; the layers of a shallower model are repeated."""
        repeated = prefix.repeat(self._space.layers // self._depth, 1, 1, 1, 1).numpy()
        z: npt.NDArray[np.float32] = self._space.z(repeated[None])[0]
        return z
