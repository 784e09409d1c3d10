"""What a PTM is, what it answers, and what it costs."""

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import OutputWithheld
from fedbbpt.types.arrays import Array, Losses, Scores
from fedbbpt.types.prompts import Injection, PromptKind


class Precision(StrEnum):
    """What a model's layers compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Runtime(StrEnum):
    """What computes an encoder's layers; embeddings and heads are torch's."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


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


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """N pairs that are computed together: prompt `prompts[i]` with row `rows[i]`, both `[N]`."""

    prompts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tokens: int
    """That it takes to compute them."""


@dataclass(frozen=True, slots=True)
class ExamplesHandle:
    """Names examples that the PTM service keeps."""

    id: str
    count: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer of the PTM, as its card's `output` says.

    float32 `[P, B, K]` scores (LABEL_LOGITS, LABEL_LOGPROBS), int32 `[P, B]` classes (LABEL_ARGMAX), or float64 `[P]`
    mean losses (LOSS_ONLY). Asked for another, it raises OutputWithheld.
    """

    output: Output
    answer: Array
    revision: str
    usage: Usage
    budget: Budget = UNLIMITED

    @property
    def scores(self) -> Scores:
        return self._given(self.output.scores, "a score for each class")

    @property
    def choices(self) -> npt.NDArray[np.int32]:
        """The classes with the highest scores `[P, B]`."""
        return self._given(self.output is Output.LABEL_ARGMAX, "classes")

    @property
    def losses(self) -> Losses:
        return self._given(self.output is Output.LOSS_ONLY, "losses")

    def _given(self, given: bool, wanted: str) -> Array:
        if not given:
            fix = f"what can be done with {self.output}, or another agreement with the provider"
            raise OutputWithheld(f"the PTM does not give {wanted}", where="output", fix=fix)
        return self.answer
