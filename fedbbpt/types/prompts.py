"""Prompts of each kind. A class knows what is particular to its kind, except how it travels and how it enters a model.

A new kind of prompt is a class here, a message (`wire.messages.prompt_messages`) and an injection in the backends that
take it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor, UnsupportedPrompt
from fedbbpt.limits import MAX_DELTA
from fedbbpt.types.digests import digest
from fedbbpt.types.prompt_checks import (
    check_elements,
    check_injection,
    check_length,
    check_norms,
    check_projection,
    check_prompt_bytes,
    check_tensor,
    check_texts,
)
from fedbbpt.types.prompt_kinds import Injection, Projection, PromptKind
from fedbbpt.types.ptm import ModelCard


class Prompts(ABC):
    """P prompts of one kind."""

    __slots__ = ()
    kind: ClassVar[PromptKind]
    field: ClassVar[str]
    """The field that holds the P prompts, here and in the kind's message."""

    def __len__(self) -> int:
        """Returns P."""
        return len(self.values)

    @property
    def values(self) -> Any:
        """The P prompts: an array, or a tuple of texts."""
        return getattr(self, self.field)

    @property
    def where(self) -> str:
        """The place of the P prompts in a ScoreRequest, for error messages."""
        return f"{self.kind}.{self.field}"

    @property
    def size_bytes(self) -> int:
        """The size of the P prompts in a message, without what all of them share."""
        return int(self.values.nbytes)

    @property
    def per_example(self) -> bool:
        """Whether a prompt differs from example to example."""
        return False

    @property
    def injection(self) -> Injection | None:
        """How the vectors of the prompts enter the model; None for prompts of other kinds."""
        return None

    @property
    def in_classes(self) -> bool:
        """Whether the prompts join the class texts instead of the inputs."""
        return self.injection is Injection.CLASS

    def take(self, indices: Sequence[int]) -> Self:
        """Returns the prompts with these indices, in this order."""
        return replace(self, **{self.field: self.values[list(indices)]})  # type: ignore[type-var]  # each is a dataclass

    @abstractmethod
    def digests(self) -> npt.NDArray[np.object_]:
        """Returns a digest of each prompt, `[P, 1]`, or `[P, B]` if a prompt differs from example to example."""

    def check(self, card: ModelCard) -> None:
        """Raises UnsupportedPrompt, InvalidTensor or PromptTooLong if the model of `card` does not take the prompts."""
        self.check_kind(card)
        self._check(card)
        if not 1 <= len(self) <= card.max_prompts:
            raise InvalidTensor(f"{len(self)} prompts", where="prompts", fix=f"1 to {card.max_prompts}")

    def check_kind(self, card: ModelCard) -> None:
        """Raises UnsupportedPrompt if the model of `card` does not take prompts of this kind and injection."""
        if self.in_classes:
            check_injection(Injection.CLASS, card)
        if self.kind not in card.prompt_kinds:
            fix = f"one of {', '.join(sorted(card.prompt_kinds))}"
            raise UnsupportedPrompt(f"{self.kind} prompts", where="prompts", fix=fix)
        if self.injection is not None:
            check_injection(self.injection, card)

    @abstractmethod
    def _check(self, card: ModelCard) -> None:
        """Checks what is particular to the kind, except the number of prompts."""

    def unsupported(self) -> UnsupportedPrompt:
        """Returns the error of a backend that does not take this kind."""
        return UnsupportedPrompt(f"{self.kind} prompts", where="prompts", fix="one of the kinds of its card")


def _column(digests: Sequence[bytes]) -> npt.NDArray[np.object_]:
    return np.array(digests, object)[:, None]


@lru_cache(maxsize=4)
def _latent_digests(projection: Projection, z: bytes, count: int) -> npt.NDArray[np.object_]:
    """Returns the digests `[count, 1]` of equally long z. Kept, because all clients of a round ask the same prompts."""
    width = len(z) // max(count, 1)
    of_projection = repr(projection)
    return _column([digest("latent", of_projection, z[i * width : (i + 1) * width]) for i in range(count)])


@dataclass(frozen=True, slots=True)
class LatentPrompts(Prompts):
    """Latent vectors z `[P, n]`, float32, which the service projects to soft prompts."""

    kind: ClassVar[PromptKind] = PromptKind.LATENT
    field: ClassVar[str] = "z"
    z: npt.NDArray[np.float32]
    projection: Projection

    @property
    def injection(self) -> Injection:
        return self.projection.injection

    def digests(self) -> npt.NDArray[np.object_]:
        return _latent_digests(self.projection, self.z.tobytes(), len(self.z))

    def _check(self, card: ModelCard) -> None:
        check_tensor(self.z, np.float32, 2, self.where)
        check_elements(self.z, card.max_latent, self.where)
        check_projection(self.projection)
        check_length(self.projection.tokens, card)
        check_prompt_bytes(len(self.z) * self.projection.tokens, card.embedding_width)


@dataclass(frozen=True, slots=True)
class SoftPrompts(Prompts):
    """The vectors of each prompt, `[P, L, D]`, float32."""

    kind: ClassVar[PromptKind] = PromptKind.SOFT
    field: ClassVar[str] = "embeddings"
    embeddings: npt.NDArray[np.float32]
    injection: Injection = Injection.PREFIX

    def digests(self) -> npt.NDArray[np.object_]:
        return _column([digest("soft", self.injection, str(one.shape), one.tobytes()) for one in self.embeddings])

    def _check(self, card: ModelCard) -> None:
        check_tensor(self.embeddings, np.float32, 3, self.where)
        _, tokens, width = self.embeddings.shape
        check_length(tokens, card)
        if width != card.embedding_width:
            raise InvalidTensor(f"width {width}", where=self.where, fix=f"width {card.embedding_width}")
        check_norms(self.embeddings, card.max_vector_norm, self.where)


@dataclass(frozen=True, slots=True)
class TokenPrompts(Prompts):
    """Tokens of the model's vocabulary, ids `[P, L]`, int32."""

    kind: ClassVar[PromptKind] = PromptKind.TOKENS
    field: ClassVar[str] = "ids"
    ids: npt.NDArray[np.int32]

    def digests(self) -> npt.NDArray[np.object_]:
        return _column([digest("tokens", one.tobytes()) for one in self.ids])

    def _check(self, card: ModelCard) -> None:
        check_tensor(self.ids, np.int32, 2, self.where)
        check_length(self.ids.shape[1], card)
        check_prompt_bytes(self.ids.size, card.embedding_width)


@dataclass(frozen=True, slots=True)
class TextPrompts(Prompts):
    """Texts, which the model's tokenizer reads."""

    kind: ClassVar[PromptKind] = PromptKind.TEXT
    field: ClassVar[str] = "texts"
    texts: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)

    def take(self, indices: Sequence[int]) -> "TextPrompts":
        return TextPrompts(tuple(self.texts[index] for index in indices))

    def digests(self) -> npt.NDArray[np.object_]:
        return _column([digest("text", text) for text in self.texts])

    def _check(self, card: ModelCard) -> None:
        check_texts(self.texts, card, self.where)


@dataclass(frozen=True, slots=True)
class ImagePrompts(Prompts):
    """Pictures that are added to the images `[B, C, H, W]`, scaled to 0 to 1; the sums are clipped to 0 to 1.

    float32 `[P, B, C, H, W]`, or `[P, 1, C, H, W]` if a prompt is the same for all images.
    """

    kind: ClassVar[PromptKind] = PromptKind.IMAGE
    field: ClassVar[str] = "deltas"
    deltas: npt.NDArray[np.float32]

    @property
    def per_example(self) -> bool:
        return int(self.deltas.shape[1]) > 1

    def digests(self) -> npt.NDArray[np.object_]:
        found = np.empty(self.deltas.shape[:2], object)
        for index in np.ndindex(*found.shape):
            found[index] = digest("image", self.deltas[index].tobytes())
        return found

    def _check(self, card: ModelCard) -> None:
        check_tensor(self.deltas, np.float32, 5, self.where)
        check_elements(self.deltas, MAX_DELTA, self.where)
        if self.deltas.shape[2:] != card.image_shape:
            raise InvalidTensor(f"shape {self.deltas.shape}", where=self.where, fix=f"images of {card.image_shape}")


@dataclass(frozen=True, slots=True)
class DeepPrompts(Prompts):
    """Keys and values that every layer sees before those of the input: `[P, layers, 2, heads, L, width]`, float32."""

    kind: ClassVar[PromptKind] = PromptKind.DEEP
    field: ClassVar[str] = "prefixes"
    prefixes: npt.NDArray[np.float32]

    def digests(self) -> npt.NDArray[np.object_]:
        return _column([digest("deep", str(one.shape), one.tobytes()) for one in self.prefixes])

    def _check(self, card: ModelCard) -> None:
        check_tensor(self.prefixes, np.float32, 6, self.where)
        _, layers, halves, heads, tokens, width = self.prefixes.shape
        if halves != 2 or (layers, heads, width) != card.prefix_shape:
            fix = f"keys and values for (layers, heads, width) {card.prefix_shape}"
            raise InvalidTensor(f"shape {self.prefixes.shape}", where=self.where, fix=fix)
        check_length(tokens, card)
        check_norms(self.prefixes, card.max_vector_norm, self.where)
