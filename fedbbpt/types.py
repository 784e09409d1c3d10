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


@dataclass(frozen=True, slots=True)
class Expansion:
    """A loss F(a) around a = 0 to second order: loss + gradient a + a hessian a / 2, for N numbers a."""

    loss: float
    gradient: npt.NDArray[np.float64]
    """`[N]`"""
    hessian: npt.NDArray[np.float64]
    """`[N, N]`"""


class Phase(StrEnum):
    """What a task asks for."""

    UPDATE = "update"
    EVALUATE = "evaluate"
    TUNE = "tune"
    """Of the model's owner, between two rounds of the clients."""


OWNER = "owner"
"""The client id of the model's owner in runs where it has a turn."""


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
    """A client's answer. `arrays` are multiplied by `weight` already, so updates add; `Orders` do not."""

    arrays: Arrays
    weight: float
    metrics: Metrics
    client_id: str = ""
    """Whose it is, as the session that brought it says; empty before that, and of a sum."""


@dataclass(frozen=True, slots=True)
class Orders:
    """An array of no numbers: uint8 `[rows, places]`, in each row different indices of that many candidates."""

    rows: int
    places: int
    candidates: int
    """At most 256."""


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
    """Inputs without labels: what the PTM gets to see. Texts, or texts with second texts, or images."""

    texts: tuple[str, ...] = ()
    pairs: tuple[str, ...] | None = None
    images: npt.NDArray[np.uint8] | None = None
    """`[B, C, H, W]`, 0 to 255; then there are no texts."""

    def __len__(self) -> int:
        return len(self.texts) if self.images is None else len(self.images)

    def take(self, rows: npt.NDArray[np.int64]) -> "Examples":
        if self.images is not None:
            return Examples(images=self.images[rows])
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in rows)
        return Examples(tuple(self.texts[i] for i in rows), pairs)


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """Inputs with their classes `[B]`; the labels stay with whoever holds them."""

    examples: Examples
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: npt.NDArray[np.int64]) -> "LabelledExamples":
        return LabelledExamples(self.examples.take(rows), self.labels[rows])


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


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """What a PTM keeps for a caller: inputs, and what is done to them before prompts join."""

    examples: Examples
    prompt_tokens: int
    """The room that texts must leave for a prompt."""
    perturbation: Perturbation | None = None
    labels: npt.NDArray[np.int64] | None = None
    """`[B]`, for a PTM that answers with losses; nowhere else do labels leave their owner."""

    def __len__(self) -> int:
        return len(self.examples)


class ProjectionKind(StrEnum):
    RADEMACHER = "rademacher"
    NORMAL = "normal"


class Precision(StrEnum):
    """What a model's layers compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Runtime(StrEnum):
    """What computes an encoder's layers; embeddings and heads are torch's."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


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


@dataclass(frozen=True, slots=True)
class ImagePrompts:
    """What is added to each image `[B, C, H, W]` of 0 to 1 before it is cut off at 0 and 1.

    float32 `[P, B, C, H, W]`, or `[P, 1, C, H, W]` where a prompt is the same for all images.
    """

    deltas: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DeepPrompts:
    """Keys and values that every layer sees before the input's own: float32 `[P, layers, 2, heads, L, width]`."""

    prefixes: npt.NDArray[np.float32]


Prompts: TypeAlias = LatentPrompts | SoftPrompts | TokenPrompts | TextPrompts | ImagePrompts | DeepPrompts


class PromptKind(StrEnum):
    LATENT = "latent"
    SOFT = "soft"
    TOKENS = "tokens"
    TEXT = "text"
    IMAGE = "image"
    DEEP = "deep"


TEXT_MODEL_PROMPTS = frozenset({PromptKind.LATENT, PromptKind.SOFT, PromptKind.TOKENS, PromptKind.TEXT})
"""What a model of text whose embeddings can be given takes."""


class Output(StrEnum):
    """What a PTM answers; what each is said in ptm.proto."""

    LOSS_ONLY = "loss-only"
    LABEL_ARGMAX = "label-argmax"
    LABEL_LOGPROBS = "label-logprobs"
    LABEL_LOGITS = "label-logits"

    @property
    def scores(self) -> bool:
        """Whether there is a number for each class."""
        return self in (Output.LABEL_LOGPROBS, Output.LABEL_LOGITS)


ENVELOPE_BYTES = 4096
"""What a message of prompts or scores holds besides them, generously."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used, by one call or in all."""

    queries: int = 0
    tokens: int = 0
    """That the model computed, or has remembered of examples."""
    compute_seconds: float = 0.0
    cached_queries: int = 0
    """Those of the queries that were answered without the model, being repeated."""
    queue_seconds: float = 0.0
    cost_micros: int = 0
    """In millionths of the currency's unit."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Price:
    """In millionths of the currency's unit."""

    currency: str = ""
    """ISO 4217, for example "EUR"."""
    micros_per_query: int = 0
    micros_per_cached_query: int = 0
    micros_per_thousand_tokens: int = 0

    def cost_micros(self, usage: Usage) -> int:
        computed = usage.queries - usage.cached_queries
        return (
            computed * self.micros_per_query
            + usage.cached_queries * self.micros_per_cached_query
            + usage.tokens * self.micros_per_thousand_tokens // 1000
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left; None: unlimited."""

    queries: int | None = None
    tokens: int | None = None
    label_tokens: int | None = None
    """How many more different label tokens the tasks may have."""


UNLIMITED = Budget()
FREE = Price()


MAX_LATENT, MAX_VECTOR_NORM = 1e4, 1e4
"""What cards say, far beyond where prompts are of use; a provider may say otherwise."""


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
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W) of a model whose inputs are images; None: its inputs are texts."""
    prefix_shape: tuple[int, int, int] | None = None
    """(layers, heads, width) of deep prompts; None where the model takes none."""
    labels: tuple[str, ...] = ()
    """Of a classifier: the names of all classes that it was trained with, of which a task's classes are some."""
    output: Output = Output.LABEL_LOGITS
    min_examples: int = 1
    """Different examples of a handle, where the output is LOSS_ONLY."""
    max_latent: float = MAX_LATENT
    """The greatest absolute element of z."""
    max_vector_norm: float = MAX_VECTOR_NORM
    """The greatest Euclidean norm of one vector of a soft or deep prompt."""
    price: Price = FREE
    max_pairs: int = 0
    """(prompt, example) pairs of one call; 0: as many as its messages hold."""


class MethodSettings:
    """What a client must know of its method: a frozen dataclass for each, and a message on the wire."""
