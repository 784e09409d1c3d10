"""The kinds of prompts, and the ways in which continuous prompts are made and enter a model. See prompt.proto."""

from dataclasses import dataclass
from enum import StrEnum


class PromptKind(StrEnum):
    """The kinds of prompts, one for each class in `types.prompts`."""

    LATENT = "latent"
    SOFT = "soft"
    TOKENS = "tokens"
    TEXT = "text"
    IMAGE = "image"
    DEEP = "deep"


TEXT_MODEL_PROMPTS = frozenset({PromptKind.LATENT, PromptKind.SOFT, PromptKind.TOKENS, PromptKind.TEXT})
"""The kinds that a text model takes if its embeddings can be replaced."""


class ProjectionKind(StrEnum):
    """The distribution of the entries of a projection's matrix A: +1 and -1, or N(0, 1)."""

    RADEMACHER = "rademacher"
    NORMAL = "normal"


class Injection(StrEnum):
    """The place where continuous prompts enter the model. prompt.proto describes each one."""

    PREFIX = "prefix"
    ADD = "add"
    CONCAT = "concat"
    PLACE = "place"
    CLASS = "class"


@dataclass(frozen=True, slots=True)
class Projection:
    """The projection by which the PTM service turns z into a soft prompt: initial + scale x std x (A z) / sqrt(n)."""

    kind: ProjectionKind
    seed: int
    """The seed of A, 0 to 2^64 - 1."""
    tokens: int
    """L, the length of the prompt."""
    scale: float
    initial_text: str
    """The prompt starts from this text's embeddings, or from zero vectors if it is empty."""
    injection: Injection = Injection.PREFIX
