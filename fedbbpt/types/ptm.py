"""The model card of a PTM service, and its answers, usage and prices."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import OutputWithheld
from fedbbpt.limits import MAX_LATENT, MAX_VECTOR_NORM
from fedbbpt.types.arrays import Array, Losses, Scores
from fedbbpt.types.prompt_kinds import Injection, PromptKind


class Output(StrEnum):
    """The kind of answer that a PTM returns. ptm.proto describes each output."""

    LOSS_ONLY = "loss-only"
    LABEL_ARGMAX = "label-argmax"
    LABEL_LOGPROBS = "label-logprobs"
    LABEL_LOGITS = "label-logits"

    @property
    def scores(self) -> bool:
        """Whether the output has a number for each class."""
        return self in (Output.LABEL_LOGPROBS, Output.LABEL_LOGITS)


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one call, or of all calls together."""

    queries: int = 0
    """(prompt, example) pairs."""
    tokens: int = 0
    """Tokens that the model computed, including those of examples whose keys and values it reused."""
    compute_seconds: float = 0.0
    cached_queries: int = 0
    """Queries that were answered without the model, because they repeat earlier ones. Part of `queries`."""
    queue_seconds: float = 0.0
    """The time that calls waited for their turn."""
    cost_micros: int = 0
    """The cost in millionths of the currency's unit."""
    bounded_scores: int = 0
    """Scores of classes that are upper bounds; see `Scored.bounds`."""

    def __add__(self, other: "Usage") -> "Usage":
        """Returns the sum of both, field by field."""
        return Usage(
            self.queries + other.queries,
            self.tokens + other.tokens,
            self.compute_seconds + other.compute_seconds,
            self.cached_queries + other.cached_queries,
            self.queue_seconds + other.queue_seconds,
            self.cost_micros + other.cost_micros,
            self.bounded_scores + other.bounded_scores,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """Prices in millionths of the currency's unit."""

    currency: str = ""
    """ISO 4217, for example "EUR"."""
    micros_per_query: int = 0
    micros_per_cached_query: int = 0
    micros_per_thousand_tokens: int = 0

    def cost_micros(self, usage: Usage) -> int:
        """Returns the cost of `usage` in millionths of the currency's unit."""
        computed = usage.queries - usage.cached_queries
        return (
            computed * self.micros_per_query
            + usage.cached_queries * self.micros_per_cached_query
            + usage.tokens * self.micros_per_thousand_tokens // 1000
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """The remaining budget of a tenant. None means unlimited."""

    queries: int | None = None
    tokens: int | None = None
    label_tokens: int | None = None
    """How many more different label tokens the tenant's tasks may have."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The account of a tenant at a service."""

    usage: Usage
    """What all calls have used."""
    left: Budget
    handles: int
    """Number of handles of examples that the service keeps."""
    tasks: Mapping[str, Usage]
    """What the calls of each task have used, by the task's id; "" stands for older tasks."""


UNLIMITED = Budget()
FREE = Price()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A description of a PTM with the limits of a call. DescribeResponse in ptm.proto describes each field."""

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
    """D; 0 if the provider does not tell it."""
    score_noise: float
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W) of a model whose inputs are images; None if its inputs are texts."""
    prefix_shape: tuple[int, int, int] | None = None
    """(layers, heads, width) of deep prompts; None if the model takes none."""
    labels: tuple[str, ...] = ()
    """The names of all classes with which a classifier was trained; a task's classes are some of them."""
    output: Output = Output.LABEL_LOGITS
    min_examples: int = 1
    """The number of different examples that a handle must hold under LOSS_ONLY."""
    max_latent: float = MAX_LATENT
    """The largest absolute element of z."""
    max_vector_norm: float = MAX_VECTOR_NORM
    """The largest Euclidean norm of one vector of a soft or deep prompt."""
    price: Price = FREE
    max_pairs: int = 0
    """The most (prompt, example) pairs of one call; 0: no limit besides the size of the messages."""
    precision: str = ""
    """The precision of the model's layers, such as "float32"; empty if the provider does not tell it."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """N pairs that are computed together: prompt `prompts[i]` with example `rows[i]`."""

    prompts: npt.NDArray[np.int64]
    """Indices of prompts, `[N]`."""
    rows: npt.NDArray[np.int64]
    """Indices of examples, `[N]`."""
    tokens: int
    """Number of tokens computed for this micro-batch."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The texts of which a model does not read the end."""

    examples: int = 0
    """Number of examples whose text was truncated."""
    tokens: int = 0
    """Number of tokens that were cut off from them in all."""

    def __add__(self, other: "Truncation") -> "Truncation":
        """Returns the sum of both, field by field."""
        return Truncation(self.examples + other.examples, self.tokens + other.tokens)


@dataclass(frozen=True, slots=True)
class ExamplesHandle:
    """Names examples that the PTM service keeps."""

    id: str
    count: int
    """Number of examples."""
    tokens: int
    """Number of tokens over all examples, without prompts."""
    truncation: Truncation | None = None
    """The texts that were truncated; None if the service does not tell."""


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer of the PTM. Which of `scores`, `choices` and `losses` it has depends on `output`.

    Each of them raises OutputWithheld if the answer is another one.
    """

    output: Output
    answer: Array
    revision: str
    usage: Usage
    budget: Budget = UNLIMITED
    """The remaining budget of the caller."""
    bounds: npt.NDArray[np.bool_] | None = None
    """In the shape of `answer`: which elements rest on an upper bound instead of a score; None: none. See ptm.proto."""

    @property
    def scores(self) -> Scores:
        """Scores of the classes, float32 `[P, B, K]` (LABEL_LOGITS, LABEL_LOGPROBS)."""
        return self._answer_if(self.output.scores, "a score for each class")

    @property
    def choices(self) -> npt.NDArray[np.int32]:
        """The classes with the highest scores, int32 `[P, B]` (LABEL_ARGMAX)."""
        return self._answer_if(self.output is Output.LABEL_ARGMAX, "classes")

    @property
    def losses(self) -> Losses:
        """Mean losses, float64 `[P]` (LOSS_ONLY)."""
        return self._answer_if(self.output is Output.LOSS_ONLY, "losses")

    def _answer_if(self, given: bool, wanted: str) -> Array:
        if not given:
            fix = f"a method that works with {self.output}, or another agreement with the provider"
            raise OutputWithheld(f"the PTM does not return {wanted}", where="output", fix=fix)
        return self.answer
