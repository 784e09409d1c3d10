"""Trains a causal language model or its prefix, as FedSP does (arXiv 2311.06805); implements interfaces.WhiteBox.

At the owner this is the full model, at a client the auxiliary one. Both stages minimise -log p(answer | prefix, input),
the mean over the answer's tokens: `align` trains the weights, `tune` the prefix. The prefix is keys and values that
each layer's attention sees before those of the input (prefix tuning, arXiv 2101.00190).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.types import Arrays, Stage
from fedbbpt.whitebox import auxiliary
from fedbbpt.whitebox.auxiliary import LayerRange
from fedbbpt.whitebox.optimise import minimise, reproducible
from fedbbpt.whitebox.prefix import prefix_cache
from fedbbpt.whitebox.sequences import AnsweredExample, Batch, draw_batches


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

    def __init__(
        self,
        model: Any,
        space: DeepSpace,
        sequences: Sequence[AnsweredExample],
        layers: LayerRange | None = None,
    ) -> None:
        """Makes the model ready.

        Args:
            model: The full model, or an auxiliary one.
            space: The space of the prefixes.
            sequences: The examples.
            layers: The full model's layers that an auxiliary model has; None for the full model.

        Raises:
            InvalidInput: The prefix does not fit the model.
        """
        self._model, self._space, self._sequences = model, space, sequences
        self._initial: Arrays | None = None
        """The initial weights, once they have changed."""
        depth = model.config.num_hidden_layers
        dropped = layers is not None and layers.mode == "drop"
        self._places = layers.taken if layers is not None and dropped else tuple(range(depth))
        """For each layer of this model, the layer of the full model whose prefix it has."""
        self._trained = [index for index, place in enumerate(self._places) if place >= space.first_layer]
        probe = torch.zeros(1, 1, dtype=torch.long)
        with torch.inference_mode():
            keys = model.eval().base_model(input_ids=probe, use_cache=True).cache.layers[0].keys
        shape = (space.layers if dropped else depth, keys.shape[1], keys.shape[3])
        if max(self._places) >= space.layers or shape != (space.layers, space.heads, space.width):
            what = f"prefixes of {space.layers} layers, {space.heads} heads and width {space.width}"
            fix = f"{max(depth, *self._places)} layers, {shape[1]} heads and width {shape[2]}, as the model has"
            raise InvalidInput(what, where="task.prompt", fix=fix)
        if not self._trained:
            what = f"{space.first_layer}, and the highest layer of the auxiliary model is {max(self._places)}"
            raise InvalidInput(what, where="task.prompt.first_layer", fix="a layer that the auxiliary model has")

    @property
    def weight(self) -> float:
        return float(len(self._sequences))

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        if self._initial is None:
            self._initial = auxiliary.weights(self._model)
        self._load(weights)
        prefix = self._prefix(z)
        self._model.requires_grad_(True)
        self._minimise(list(self._model.parameters()), lambda: prefix, stage, seed)
        return auxiliary.weights(self._model)

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        self._load(weights)
        whole = self._prefix(z)
        fixed, trained = whole[: self._trained[0]], nn.Parameter(whole[self._trained[0] :])
        self._model.requires_grad_(False)
        losses = self._minimise([trained], lambda: torch.cat([fixed, trained]), stage, seed)
        return self._changed(z, trained.detach()), float(np.mean(losses))

    def _minimise(
        self, parameters: list[nn.Parameter], prefix: Callable[[], Tensor], stage: Stage, seed: int
    ) -> list[float]:
        drawn = draw_batches(self._sequences, stage.batch_size, seed)
        self._model.train()
        with reproducible(seed):
            return minimise(parameters, lambda: answer_loss(self._model, prefix(), next(drawn)), stage)

    def _load(self, weights: Arrays) -> None:
        if weights or self._initial is not None:
            auxiliary.load_weights(self._model, weights or self._initial or {})

    def _prefix(self, z: npt.NDArray[np.float32]) -> Tensor:
        """Returns the prefix `[depth, 2, heads, L, width]` of z for this model's layers."""
        return torch.from_numpy(self._space.prefixes(z[None])[0, list(self._places)])

    def _changed(self, z: npt.NDArray[np.float32], trained: Tensor) -> npt.NDArray[np.float32]:
        """Returns z with the prefix of the trained layers; layers that this model does not have keep theirs."""
        whole = self._space.prefixes(z[None])
        whole[0, [self._places[index] for index in self._trained]] = trained.numpy()
        (changed,) = self._space.z(whole)
        return np.asarray(changed, np.float32)
