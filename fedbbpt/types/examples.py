"""Inputs, with labels and without, and the task that they belong to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
