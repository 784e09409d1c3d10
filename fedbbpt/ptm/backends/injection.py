"""How a prompt joins an input: among the word embeddings, or behind the model's embedding block.

Black-box tuning (BBT, arXiv 2201.03514) puts its prompt behind the embedding LayerNorm: `add` and `concat`, as its code
and that of FedBPT do; `prefix` needs no such seam. For inputs of T tokens every injection makes L + T hidden states.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidTensor
from fedbbpt.prompts.projection import blocks, check_norm, factor, project
from fedbbpt.ptm.backends.encoding import Encoder, Row
from fedbbpt.ptm.backends.parts import Parts
from fedbbpt.ptm.validation import check_prompt_bytes, unsupported
from fedbbpt.types import (
    DeepPrompts,
    Injection,
    LatentPrompts,
    Projection,
    ProjectionKind,
    Prompts,
    SoftPrompts,
    TextPrompts,
    TokenPrompts,
)

T = TypeVar("T")

MATRICES = 4
"""Of projections that are kept on a device: the clients of a run share theirs."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The prompts of one call. Continuous ones join in front, tokens, text and `place` at the template's place.

    `each` is `[L, D]` for each prompt; `carriers` `[L, D]` are the words that `add` puts into the text. Deep prompts
    join no input: where `deep` holds them, `[P, layers, 2, heads, L, width]`, `each` only says how long they are.
    """

    each: Sequence[Tensor]
    injection: Injection = Injection.PREFIX
    carriers: Tensor | None = None
    in_front: bool = True
    deep: Tensor | None = None

    def joint(self, row: Row) -> int:
        return row.front if self.in_front else row.slot

    def mask(self, prompt: int, row: Row) -> int | None:
        """Where the row's mask token stands once the prompt has joined."""
        if row.mask is None:
            return None
        return row.mask + len(self.each[prompt]) * (row.mask >= self.joint(row))


class Entrance:
    """Makes vectors of prompts, and hidden states of prompts and rows, for one model and its tokenizer."""

    def __init__(self, parts: Parts, encoder: Encoder) -> None:
        self._parts, self._encoder = parts, encoder
        self.std = float(parts.words.weight.std())
        self._device = parts.words.weight.device
        self._matrix = lru_cache(maxsize=MATRICES)(self._load_matrix)
        self.injections = frozenset({Injection.PREFIX, Injection.PLACE} if parts.block is None else Injection)

    def words(self, ids: npt.ArrayLike) -> Tensor:
        """`[..., T]` -> `[..., T, D]`."""
        vectors: Tensor = self._parts.words(torch.tensor(np.asarray(ids, np.int64), device=self._device))
        return vectors

    def _all_words(self, rows: Sequence[Row]) -> Sequence[Tensor] | Tensor:
        """Of each row `[T, D]`; one tensor where all are equally long."""
        ids = [row.ids for row in rows]
        return _each_once(ids, self.words) if len(set(map(len, ids))) == 1 else [self.words(each) for each in ids]

    def vectors(self, prompts: Prompts) -> Vectors:
        """Raises InvalidTensor for tokens outside the vocabulary, UnsupportedPrompt."""
        if isinstance(prompts, LatentPrompts):
            return self._projected(prompts)
        if isinstance(prompts, SoftPrompts):
            embeddings = torch.tensor(prompts.embeddings, device=self._device)
            return _continuous(embeddings, prompts.injection, torch.zeros_like(embeddings[0]))
        if isinstance(prompts, TokenPrompts):
            last = self._parts.words.num_embeddings - 1
            if not 0 <= prompts.ids.min() <= prompts.ids.max() <= last:
                raise InvalidTensor("a token outside the vocabulary", where="tokens.ids", fix=f"ids from 0 to {last}")
            return Vectors([self.words(ids) for ids in prompts.ids], in_front=False)
        if isinstance(prompts, TextPrompts):
            found = self._encoder.inputs(prompts.texts)
            check_prompt_bytes(sum(map(len, found)), self._parts.words.embedding_dim)
            return Vectors([self.words(ids) for ids in found], in_front=False)
        if isinstance(prompts, DeepPrompts):
            deep = torch.tensor(prompts.prefixes, device=self._device)
            return Vectors([torch.empty(deep.shape[4], 0)] * len(deep), deep=deep)
        raise unsupported(prompts)

    def _projected(self, prompts: LatentPrompts) -> Vectors:
        """Under `add` the initial text stands in the input, and A z alone is the vector."""
        projection = prompts.projection
        initial = np.zeros((projection.tokens, self._parts.words.embedding_dim), np.float32)
        if ids := self._encoder.tokenise([projection.initial_text])[0]:
            initial = self.words(np.resize(ids, projection.tokens)).cpu().numpy()
        around = np.zeros_like(initial) if projection.injection is Injection.ADD else initial
        vectors = self._project(projection, prompts.z, around)
        return _continuous(vectors, projection.injection, torch.from_numpy(initial).to(self._device))

    def _project(self, projection: Projection, z: npt.NDArray[np.float32], initial: npt.NDArray[np.float32]) -> Tensor:
        """`[P, L, D]`. On a device by one product, which there takes no time and whose last bits are not promised."""
        if self._device.type == "cpu":
            return torch.from_numpy(project(projection, z, initial, self.std))
        n = z.shape[1]
        a = self._matrix(projection.kind, projection.seed, initial.size, n)
        products = torch.from_numpy(z).to(self._device) @ a.T * float(factor(projection, n, self.std))
        vectors: Tensor = torch.from_numpy(initial).to(self._device) + products.reshape(-1, *initial.shape)
        check_norm(float(torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64).max()))
        return vectors

    def _load_matrix(self, kind: ProjectionKind, seed: int, rows: int, n: int) -> Tensor:
        return torch.cat([torch.from_numpy(block).to(self._device) for block in blocks(kind, seed, rows, n)])

    def hidden(self, vectors: Vectors, pairs: Sequence[tuple[int, Row]]) -> Tensor:
        """What enters the model's first layer, `[N, L + T, D]`, for N pairs (prompt, row) of one length."""
        joints = [vectors.joint(row) for _, row in pairs]
        prompts = [vectors.each[prompt] for prompt, _ in pairs]
        rows = self._all_words([row for _, row in pairs])
        if vectors.injection is Injection.CONCAT:
            assert isinstance(rows, Tensor), "vectors are all of one length, and so are their rows"
            return _joined(self._parts.lift(rows), prompts, joints)
        if vectors.injection is Injection.ADD:
            assert vectors.carriers is not None, "only words in the text's place have no carriers"
            hidden = self._parts.lift(_joined(rows, [vectors.carriers] * len(rows), joints))
            for input, prompt, joint in zip(hidden, prompts, joints, strict=True):
                input[joint : joint + len(prompt)] += prompt
            return hidden
        return self._parts.lift(_joined(rows, prompts, joints))


def _continuous(each: Tensor, injection: Injection, carriers: Tensor) -> Vectors:
    return Vectors(list(each), injection, carriers, in_front=injection is not Injection.PLACE)


def _each_once(things: Sequence[T], make: Callable[[Sequence[T]], Tensor]) -> Tensor:
    """`make` of all things, `[N, ...]`. Pairs repeat their rows and prompts: each object is made into numbers once."""
    distinct = {id(thing): thing for thing in things}
    places = {name: place for place, name in enumerate(distinct)}
    return make(list(distinct.values()))[[places[id(thing)] for thing in things]]


def _joined(inputs: Sequence[Tensor] | Tensor, prompts: Sequence[Tensor], joints: Sequence[int]) -> Tensor:
    """Each prompt `[L, D]` put into its input `[T, D]` before the place `joint`: `[N, L + T, D]`."""
    if isinstance(inputs, Tensor) and len(set(joints)) == 1:
        joint = joints[0]
        return torch.cat([inputs[:, :joint], _each_once(prompts, _stacked), inputs[:, joint:]], dim=1)
    parts = zip(inputs, prompts, joints, strict=True)
    return torch.stack([torch.cat([input[:joint], prompt, input[joint:]]) for input, prompt, joint in parts])


def _stacked(each: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(each))
