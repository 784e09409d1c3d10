"""The kinds of prompts that a PTM takes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt


class PromptKind(StrEnum):
    LATENT = "latent"
    SOFT = "soft"
    TOKENS = "tokens"
    TEXT = "text"
    IMAGE = "image"
    DEEP = "deep"


class ProjectionKind(StrEnum):
    RADEMACHER = "rademacher"
    NORMAL = "normal"


class Injection(StrEnum):
    """How continuous prompts enter the model; what each does is said in ptm.proto."""

    PREFIX = "prefix"
    ADD = "add"
    CONCAT = "concat"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class Projection:
    """How the PTM service turns z into a prompt: initial + scale x std x (A z) / sqrt(n)."""

    kind: ProjectionKind
    seed: int
    tokens: int
    scale: float
    initial_text: str
    injection: Injection = Injection.PREFIX


@dataclass(frozen=True, slots=True)
class LatentPrompts:
    """float32 `[P, n]`; the service projects them."""

    kind: ClassVar = PromptKind.LATENT
    z: npt.NDArray[np.float32]
    projection: Projection


@dataclass(frozen=True, slots=True)
class SoftPrompts:
    """float32 `[P, L, D]`."""

    kind: ClassVar = PromptKind.SOFT
    embeddings: npt.NDArray[np.float32]
    injection: Injection = Injection.PREFIX


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """Ids of the model's vocabulary, int32 `[P, L]`."""

    kind: ClassVar = PromptKind.TOKENS
    ids: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """Texts, which the model's tokenizer reads."""

    kind: ClassVar = PromptKind.TEXT
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImagePrompts:
    """What is added to each image `[B, C, H, W]` of 0 to 1 before it is cut off at 0 and 1.

    float32 `[P, B, C, H, W]`, or `[P, 1, C, H, W]` where a prompt is the same for all images.
    """

    kind: ClassVar = PromptKind.IMAGE
    deltas: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DeepPrompts:
    """Keys and values that every layer sees before the input's own: float32 `[P, layers, 2, heads, L, width]`."""

    kind: ClassVar = PromptKind.DEEP
    prefixes: npt.NDArray[np.float32]


Prompts: TypeAlias = LatentPrompts | SoftPrompts | TokenPrompts | TextPrompts | ImagePrompts | DeepPrompts


TEXT_MODEL_PROMPTS = frozenset({PromptKind.LATENT, PromptKind.SOFT, PromptKind.TOKENS, PromptKind.TEXT})
"""What a model of text whose embeddings can be given takes."""
