"""How a prompt joins an input: among the word embeddings, or behind the model's embedding block.

Black-box tuning (BBT, arXiv 2201.03514) puts its prompt behind the embedding LayerNorm: `add` and `concat`, as its code
and that of FedBPT do; `prefix` needs no such seam. For inputs of T tokens every injection makes L + T hidden states.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidTensor
from fedbbpt.ptm.checks import check_prompt_bytes, unsupported
from fedbbpt.ptm.models.accelerate.latent_projection import LatentProjector
from fedbbpt.ptm.models.accelerate.upload import upload
from fedbbpt.ptm.models.text.encoding import ExampleEncoder, TokenisedExample
from fedbbpt.ptm.models.text.split_model import SplitModel
from fedbbpt.types import (
    DeepPrompts,
    Injection,
    LatentPrompts,
    MicroBatch,
    Prompts,
    SoftPrompts,
    TextPrompts,
    TokenPrompts,
)

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PromptVectors:
    """The prompts of one call. Continuous ones join in front, tokens, text and `place` at the template's place.

    `each` is `[L, D]` for each prompt; `carrier_words` `[L, D]` are the words that `add` puts into the text. Deep
    prompts join no input: where `deep` holds them, `[P, layers, 2, heads, L, width]`, `each` only says how long they
    are.
    """

    each: Sequence[Tensor]
    injection: Injection = Injection.PREFIX
    carrier_words: Tensor | None = None
    in_front: bool = True
    deep: Tensor | None = None

    def join_index(self, row: TokenisedExample) -> int:
        return row.front_index if self.in_front else row.prompt_index

    def read_position(self, row: TokenisedExample, tokens: int) -> int:
        """Where a pair of so many tokens is read: at its mask, which moves with a prompt before it, or at its end."""
        if row.mask_index is None:
            return tokens - 1
        return row.mask_index + (tokens - len(row.ids)) * (row.mask_index >= self.join_index(row))


class PromptInjector:
    """Makes vectors of prompts, and hidden states of prompts and rows, for one model and its tokenizer."""

    def __init__(self, model: SplitModel, encoder: ExampleEncoder) -> None:
        self._model, self._encoder = model, encoder
        self._device = model.word_embeddings.weight.device
        self._project = LatentProjector(model.word_embeddings.weight)
        self.injections = frozenset({Injection.PREFIX, Injection.PLACE} if model.embedding_block is None else Injection)

    def embed_tokens(self, ids: npt.ArrayLike) -> Tensor:
        """`[..., T]` -> `[..., T, D]`."""
        vectors: Tensor = self._model.word_embeddings(upload(np.asarray(ids, np.int64), self._device))
        return vectors

    def prompt_vectors(self, prompts: Prompts) -> PromptVectors:
        """Raises InvalidTensor for tokens outside the vocabulary, UnsupportedPrompt."""
        if isinstance(prompts, LatentPrompts):
            return self._project_latent(prompts)
        if isinstance(prompts, SoftPrompts):
            embeddings = upload(prompts.embeddings, self._device)
            return _continuous(embeddings, prompts.injection, torch.zeros_like(embeddings[0]))
        if isinstance(prompts, TokenPrompts):
            last = self._model.word_embeddings.num_embeddings - 1
            if not 0 <= prompts.ids.min() <= prompts.ids.max() <= last:
                raise InvalidTensor("a token outside the vocabulary", where="tokens.ids", fix=f"ids from 0 to {last}")
            return PromptVectors([self.embed_tokens(ids) for ids in prompts.ids], in_front=False)
        if isinstance(prompts, TextPrompts):
            found = self._encoder.tokenise_bounded(prompts.texts)
            check_prompt_bytes(sum(map(len, found)), self._model.word_embeddings.embedding_dim)
            return PromptVectors([self.embed_tokens(ids) for ids in found], in_front=False)
        if isinstance(prompts, DeepPrompts):
            deep = upload(prompts.prefixes, self._device)
            return PromptVectors([torch.empty(deep.shape[4], 0)] * len(deep), deep=deep)
        raise unsupported(prompts)

    def _project_latent(self, prompts: LatentPrompts) -> PromptVectors:
        """Under `add` the initial text stands in the input, and A z alone is the vector."""
        projection = prompts.projection
        initial = torch.zeros(projection.tokens, self._model.word_embeddings.embedding_dim, device=self._device)
        if ids := self._encoder.tokenise([projection.initial_text])[0]:
            initial = self.embed_tokens(np.resize(ids, projection.tokens))
        around = torch.zeros_like(initial) if projection.injection is Injection.ADD else initial
        return _continuous(self._project(projection, prompts.z, around), projection.injection, initial)

    def first_layer_inputs(self, vectors: PromptVectors, batch: MicroBatch, rows: Sequence[TokenisedExample]) -> Tensor:
        """What enters the model's first layer, `[N, L + T, D]`, for N pairs of one length.

        Pairs repeat their rows and prompts: those whose rows are alike are joined together, and what a row or a prompt
        is made of is looked up once.
        """
        some, which = np.unique(batch.rows, return_inverse=True)
        shapes = [(len(rows[row].ids), vectors.join_index(rows[row])) for row in some]
        if len(set(shapes)) == 1:
            return self._inputs_of_one_shape(vectors, batch.prompts, batch.rows, rows, shapes[0][1])
        groups = [np.flatnonzero([shapes[row] == shape for row in which]) for shape in dict.fromkeys(shapes)]
        parts = [
            self._inputs_of_one_shape(vectors, batch.prompts[group], batch.rows[group], rows, joint)
            for group, (_, joint) in zip(groups, dict.fromkeys(shapes), strict=True)
        ]
        return torch.cat(parts)[upload(np.argsort(np.concatenate(groups)), self._device)]

    def _inputs_of_one_shape(
        self, vectors: PromptVectors, prompts: Indices, numbers: Indices, rows: Sequence[TokenisedExample], joint: int
    ) -> Tensor:
        """The same for prompts `[N]` with rows `[N]` of one length, in which they have one place."""
        lift = self._model.apply_embedding_block
        words = self._once_for_each(numbers, lambda some: self.embed_tokens([rows[row].ids for row in some]))
        if vectors.injection is Injection.CONCAT:
            words = lift(words)
        elif vectors.injection is Injection.ADD:
            assert vectors.carrier_words is not None, "only words in the text's place have no carriers"
            words = lift(_insert(words, vectors.carrier_words.expand(len(words), -1, -1), joint))
        joining = self._once_for_each(prompts, lambda some: torch.stack([vectors.each[prompt] for prompt in some]))
        if vectors.injection is Injection.ADD:
            words[:, joint : joint + joining.shape[1]] += joining
            return words
        joined = _insert(words, joining, joint)
        return joined if vectors.injection is Injection.CONCAT else lift(joined)

    def _once_for_each(self, numbers: Indices, make: Callable[[Indices], Tensor]) -> Tensor:
        """`make` of `[N]` things, `[N, ...]`, where of each it was asked once."""
        some, which = np.unique(numbers, return_inverse=True)
        return make(some)[upload(which, self._device)]


def _continuous(each: Tensor, injection: Injection, carrier_words: Tensor) -> PromptVectors:
    return PromptVectors(list(each), injection, carrier_words, in_front=injection is not Injection.PLACE)


def _insert(inputs: Tensor, prompts: Tensor, joint: int) -> Tensor:
    """Each prompt `[N, L, D]` put into its input `[N, T, D]` before the place `joint`: `[N, L + T, D]`."""
    return torch.cat([inputs[:, :joint], prompts, inputs[:, joint:]], dim=1)
