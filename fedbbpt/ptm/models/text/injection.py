"""Turns prompts into vectors, and joins these with inputs: among word vectors, or after the embedding block.

Black-box tuning (BBT, arXiv 2201.03514) puts its prompt after the embedding LayerNorm. The injections `add` and
`concat` do the same, as in the code of BBT and FedBPT; `prefix` and `place` join word vectors and work for every model.
An input of T tokens and a prompt of L always give L + T hidden states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidExamples, InvalidTensor
from fedbbpt.ptm.models.accelerate.latent_projection import LatentProjector
from fedbbpt.ptm.models.accelerate.upload import upload
from fedbbpt.ptm.models.text.encoding import ExampleEncoder, TokenisedExample
from fedbbpt.ptm.models.text.split_model import SplitModel
from fedbbpt.types import (
    DeepPrompts,
    Injection,
    LatentPrompts,
    MicroBatch,
    PromptKind,
    Prompts,
    SoftPrompts,
    TextPrompts,
    TokenPrompts,
)
from fedbbpt.types.prompt_checks import check_prompt_bytes

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PromptVectors:
    """The prompts of one call as vectors."""

    each: Sequence[Tensor]
    """The vectors `[L, D]` of each prompt."""
    injection: Injection = Injection.PREFIX
    carrier_words: Tensor | None = None
    """Word vectors `[L, D]` that `add` puts into the text, and to whose hidden states it adds the prompt."""
    in_front: bool = True
    """True: prompts join at the front of the input; False: at the template's {prompt}."""
    deep: Tensor | None = None
    """Deep prompts `[P, layers, 2, heads, L, width]`, which join no input: `each` then only has their lengths."""

    def join_index(self, row: TokenisedExample) -> int:
        """Returns the index of the token before which a prompt joins.

        Raises:
            InvalidExamples: A token has characters from both sides of the template's {prompt}.
        """
        if row.no_prompt_index and not self.in_front:
            what = "a token of an example has characters from both sides of {prompt}"
            raise InvalidExamples(what, where="template", fix="white space around {prompt}")
        return row.front_index if self.in_front else row.prompt_index

    def read_position(self, row: TokenisedExample, tokens: int) -> int:
        """Returns the position at which a pair of `tokens` tokens is scored: its mask, or its last token.

        A prompt that joins before the mask moves it.
        """
        if row.mask_index is None:
            return tokens - 1
        return row.mask_index + (tokens - len(row.ids)) * (row.mask_index >= self.join_index(row))


class PromptInjector:
    """Makes the vectors of prompts, and the inputs of a model's first layer from prompts and examples."""

    def __init__(self, model: SplitModel, encoder: ExampleEncoder) -> None:
        self._model, self._encoder = model, encoder
        self._device = model.word_embeddings.weight.device
        self._project = LatentProjector(model.word_embeddings)
        self._embed: Mapping[PromptKind, Callable[[Any], PromptVectors]] = {
            PromptKind.LATENT: self._project_latent,
            PromptKind.SOFT: self._embed_soft,
            PromptKind.TOKENS: self._embed_ids,
            PromptKind.DEEP: self._embed_deep,
        }
        self.injections = frozenset({Injection.PREFIX, Injection.PLACE})
        """How vectors can join an input."""
        if model.embedding_block is not None:
            self.injections |= {Injection.ADD, Injection.CONCAT}

    def embed_tokens(self, ids: npt.ArrayLike) -> Tensor:
        """Returns the word vectors `[..., T, D]` of token ids `[..., T]`."""
        vectors: Tensor = self._model.word_embeddings(upload(np.asarray(ids, np.int64), self._device))
        return vectors

    def prompt_vectors(self, prompts: Prompts, rows: Sequence[TokenisedExample] = ()) -> PromptVectors:
        """Returns the vectors of each prompt. `rows`: the examples with which the prompts are scored.

        Raises:
            InvalidTensor: A token is outside the vocabulary, or a text is not tokenised alike next to all examples.
            UnsupportedPrompt: The model does not take prompts of this kind.
        """
        if isinstance(prompts, TextPrompts):
            return self._embed_texts(prompts, rows)
        embed = self._embed.get(prompts.kind)
        if embed is None:
            raise prompts.unsupported()
        return embed(prompts)

    def _embed_soft(self, prompts: SoftPrompts) -> PromptVectors:
        embeddings = upload(prompts.embeddings, self._device)
        return _continuous(embeddings, prompts.injection, torch.zeros_like(embeddings[0]))

    def _embed_ids(self, prompts: TokenPrompts) -> PromptVectors:
        last = self._model.word_embeddings.num_embeddings - 1
        if not 0 <= prompts.ids.min() <= prompts.ids.max() <= last:
            raise InvalidTensor("a token outside the vocabulary", where="tokens.ids", fix=f"ids from 0 to {last}")
        self._encoder.check_prompt(prompts.ids)
        return PromptVectors([self.embed_tokens(ids) for ids in prompts.ids], in_front=False)

    def _embed_texts(self, prompts: TextPrompts, rows: Sequence[TokenisedExample]) -> PromptVectors:
        found = self._encoder.encode_prompts(prompts.texts, rows)
        check_prompt_bytes(sum(map(len, found)), self._model.word_embeddings.embedding_dim)
        return PromptVectors([self.embed_tokens(ids) for ids in found], in_front=False)

    def _embed_deep(self, prompts: DeepPrompts) -> PromptVectors:
        deep = upload(prompts.prefixes, self._device)
        return PromptVectors([torch.empty(deep.shape[4], 0)] * len(deep), deep=deep)

    def _project_latent(self, prompts: LatentPrompts) -> PromptVectors:
        """Projects latent prompts. With `add`, the initial text is part of the input and A z alone is the vector."""
        projection = prompts.projection
        initial = torch.zeros(projection.tokens, self._model.word_embeddings.embedding_dim, device=self._device)
        if ids := self._encoder.tokenise_initial_text(projection.initial_text):
            initial = self.embed_tokens(np.resize(ids, projection.tokens))
        centre = torch.zeros_like(initial) if projection.injection is Injection.ADD else initial
        return _continuous(self._project(projection, prompts.z, centre), projection.injection, initial)

    def first_layer_inputs(self, vectors: PromptVectors, batch: MicroBatch, rows: Sequence[TokenisedExample]) -> Tensor:
        """Returns the inputs of the model's first layer, `[N, L + T, D]`, for N pairs of one length.

        The pairs of a batch repeat examples and prompts. Pairs whose examples have one length and one join index are
        assembled together, and the vectors of each example and each prompt are looked up once.
        """
        distinct, which = np.unique(batch.rows, return_inverse=True)
        shapes = [(len(rows[row].ids), vectors.join_index(rows[row])) for row in distinct]
        if len(set(shapes)) == 1:
            return self._inputs_of_one_shape(vectors, batch.prompts, batch.rows, rows, shapes[0][1])
        groups = [np.flatnonzero([shapes[row] == shape for row in which]) for shape in dict.fromkeys(shapes)]
        parts = [
            self._inputs_of_one_shape(vectors, batch.prompts[group], batch.rows[group], rows, join_index)
            for group, (_, join_index) in zip(groups, dict.fromkeys(shapes), strict=True)
        ]
        return torch.cat(parts)[upload(np.argsort(np.concatenate(groups)), self._device)]

    def _inputs_of_one_shape(
        self,
        vectors: PromptVectors,
        prompts: Indices,
        numbers: Indices,
        rows: Sequence[TokenisedExample],
        join_index: int,
    ) -> Tensor:
        """Does the same for prompts `[N]` and examples `[N]` of one length and one join index."""
        apply_block = self._model.apply_embedding_block
        words = self._once_for_each(numbers, lambda distinct: self.embed_tokens([rows[row].ids for row in distinct]))
        length = len(vectors.each[prompts[0]])
        if vectors.injection is Injection.CONCAT:
            words = apply_block(words, self._segments(numbers, rows, join_index, 0))
        elif vectors.injection is Injection.ADD:
            assert vectors.carrier_words is not None, "every prompt that `add` joins has carrier words"
            words = _insert(words, vectors.carrier_words.expand(len(words), -1, -1), join_index)
            words = apply_block(words, self._segments(numbers, rows, join_index, length))
        prompt_vectors = self._once_for_each(prompts, lambda distinct: torch.stack([vectors.each[p] for p in distinct]))
        if vectors.injection is Injection.ADD:
            words[:, join_index : join_index + length] += prompt_vectors
            return words
        joined = _insert(words, prompt_vectors, join_index)
        if vectors.injection is Injection.CONCAT:
            return joined
        return apply_block(joined, self._segments(numbers, rows, join_index, length))

    def _segments(
        self, numbers: Indices, rows: Sequence[TokenisedExample], join_index: int, length: int
    ) -> Tensor | None:
        """Returns the segments `[N, T + L]` of examples with a prompt of `length` tokens; None if all are 0.

        A prompt has the segment of the token before which it joins, or of the last token if it joins at the end.
        """
        if not any(rows[row].segments for row in numbers):
            return None
        own = np.array([rows[row].segments or (0,) * len(rows[row].ids) for row in numbers], np.int64)
        of_prompt = own[:, [min(join_index, own.shape[1] - 1)]].repeat(length, axis=1)
        return upload(np.hstack([own[:, :join_index], of_prompt, own[:, join_index:]]), self._device)

    def _once_for_each(self, numbers: Indices, make: Callable[[Indices], Tensor]) -> Tensor:
        """Returns what `make` gives for each of `[N]` numbers, `[N, ...]`, calling it once with the distinct ones."""
        distinct, which = np.unique(numbers, return_inverse=True)
        return make(distinct)[upload(which, self._device)]


def _continuous(each: Tensor, injection: Injection, carrier_words: Tensor) -> PromptVectors:
    return PromptVectors(list(each), injection, carrier_words, in_front=injection is not Injection.PLACE)


def _insert(inputs: Tensor, prompts: Tensor, join_index: int) -> Tensor:
    """Inserts each prompt `[N, L, D]` into its input `[N, T, D]` before `join_index`: `[N, L + T, D]`."""
    return torch.cat([inputs[:, :join_index], prompts, inputs[:, join_index:]], dim=1)
