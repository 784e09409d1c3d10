"""The nouns of the framework, all in one place, hence long.

P candidates, n length of z, B examples, L prompt tokens, D embedding width, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
"""What crosses the wire between clients and coordinator, and nothing else."""
Metrics: TypeAlias = Mapping[str, float]
"""Sums and counts, never means: metrics add."""
Population: TypeAlias = npt.NDArray[np.float64]
"""Candidates `[P, n]`."""
Losses: TypeAlias = npt.NDArray[np.float64]
"""One loss a candidate `[P]`, lower is better."""
Scores: TypeAlias = npt.NDArray[np.float32]
"""Logits over classes `[P, B, K]`."""


class Phase(StrEnum):
    """What a task asks for."""

    UPDATE = "update"
    EVALUATE = "evaluate"


class Receipt(StrEnum):
    """What became of an update."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too-late"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """Names one piece of work; its identity is its idempotency key."""

    run_id: str
    round: int
    client_id: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Task:
    """What a coordinator asks of one client in one round."""

    id: TaskId
    seed: int
    """The same for all clients of the round."""
    arrays: Arrays
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Update:
    """A client's answer. `arrays` are multiplied by `weight` already, so updates add."""

    arrays: Arrays
    weight: float
    metrics: Metrics


def merge(updates: Sequence[Update]) -> Update:
    """The sum of updates, in order. A method is linear when its server cannot tell `us` from `[merge(us)]`."""
    if not updates:
        raise ValueError("merge needs at least one update")
    names = updates[0].arrays.keys()
    metrics: dict[str, float] = {}
    for update in updates:
        for name, value in update.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return Update(
        arrays={name: sum((u.arrays[name] for u in updates[1:]), updates[0].arrays[name]) for name in names},
        weight=sum((u.weight for u in updates[1:]), updates[0].weight),
        metrics=metrics,
    )


def pack(state: Any) -> dict[str, Array]:
    """A frozen dataclass of arrays and numbers as plain arrays, for a store to hold."""
    return {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}


S = TypeVar("S")


def unpack(cls: type[S], arrays: Arrays) -> S:
    """The inverse of `pack`: zero-dimensional arrays become numbers again."""
    return cls(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs without labels: what the PTM gets to see."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """Inputs with their classes `[B]`; the labels stay with whoever holds them."""

    examples: Examples
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: npt.NDArray[np.int64]) -> "LabelledExamples":
        texts, pairs = self.examples.texts, self.examples.pairs
        return LabelledExamples(
            Examples(tuple(texts[i] for i in rows), None if pairs is None else tuple(pairs[i] for i in rows)),
            self.labels[rows],
        )


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the PTM is asked.

    `template` has the places {prompt}, {text}, {text_pair} and {mask}; `classes` one text for each class.
    """

    template: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A fraction `rate` of each text's tokens gives way to random ones (arXiv 2310.01467, equation 7)."""

    rate: float
    seed: int


class ProjectionKind(StrEnum):
    RADEMACHER = "rademacher"
    NORMAL = "normal"


class Injection(StrEnum):
    """How continuous prompts enter the model."""

    PREFIX = "prefix"


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

    z: npt.NDArray[np.float32]
    projection: Projection


@dataclass(frozen=True, slots=True)
class SoftPrompts:
    """float32 `[P, L, D]`."""

    embeddings: npt.NDArray[np.float32]
    injection: Injection = Injection.PREFIX


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """Ids of the model's vocabulary, int32 `[P, L]`."""

    ids: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TextPrompts:
    texts: tuple[str, ...]


Prompts: TypeAlias = LatentPrompts | SoftPrompts | TokenPrompts | TextPrompts


OFFSET_SCALE = 0.25
"""Of a score, per entry of z: a step of 1 in all of z then moves losses by prompt and by offsets about alike."""


@dataclass(frozen=True, slots=True)
class PromptSpace:
    """Where z lives, `[dim]`, and what it stands for.

    Its last `offsets` entries, times OFFSET_SCALE, are added to the scores of the classes, which costs no queries since
    the scores are there; the entries before them become a prompt.
    """

    dim: int
    projection: Projection
    offsets: int = 0
    """K, or 0 where only the prompt is searched."""

    def prompts(self, z: npt.NDArray[np.floating]) -> LatentPrompts:
        """Of each z `[P, dim]`."""
        return LatentPrompts(z[:, : self.dim - self.offsets].astype(np.float32), self.projection)

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        """The scores `[P, B, K]` of those prompts with each z's offsets added."""
        if not self.offsets:
            return scores
        return scores + np.float32(OFFSET_SCALE) * z[:, None, self.dim - self.offsets :].astype(np.float32)


class PromptKind(StrEnum):
    LATENT = "latent"
    SOFT = "soft"
    TOKENS = "tokens"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a PTM is and what it takes."""

    model: str
    revision: str
    family: str
    prompt_kinds: frozenset[PromptKind]
    injections: frozenset[Injection]
    max_tokens: int
    max_prompts: int
    max_examples: int
    max_message_bytes: int
    embedding_width: int
    """0 where the provider does not tell."""
    score_noise: float


@dataclass(frozen=True, slots=True)
class Usage:
    queries: int = 0
    tokens: int = 0
    compute_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.queries + other.queries,
            self.tokens + other.tokens,
            self.compute_seconds + other.compute_seconds,
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer of the PTM."""

    scores: Scores
    revision: str
    usage: Usage


class MethodSettings:
    """What a client must know of its method: a frozen dataclass for each, and a message on the wire."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a client learns when it joins."""

    run_id: str
    task: TaskSpec
    labels: tuple[str, ...]
    """The names that data files use for the classes, in class order."""
    space: PromptSpace
    method: MethodSettings
    codec: str
    rounds: int
    ptm_address: str
    """Empty where each client knows its own."""
    ptm_revision: str
    """Empty where the run does not pin one."""
    max_update_bytes: int
