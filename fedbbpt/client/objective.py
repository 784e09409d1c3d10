"""The local loss as a function of candidates: PTM scores and the labels that never leave this process.

The only place that counts a client's queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.data.images import fit
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks.criterion import correct, cross_entropies, cross_entropy, expansion
from fedbbpt.types import (
    Examples,
    Expansion,
    LabelledExamples,
    Losses,
    Metrics,
    Perturbation,
    Population,
    Scores,
    TaskSpec,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Examples that the PTM service keeps, and their handle."""

    id: str
    examples: Examples


class LocalObjectives:
    """`interfaces.Objectives` over one client's training examples, and the measure of a prompt on its dev examples."""

    def __init__(
        self, ptm: Ptm, task: TaskSpec, space: PromptSpace, train: LabelledExamples, dev: LabelledExamples
    ) -> None:
        self._ptm, self._space, self._train, self._dev = ptm, space, train, dev
        self._task_id = ptm.register_task(task)
        self._card = ptm.describe()
        self._train_parts = self._register(train)
        self._dev_parts = self._register(dev)
        self.queries = 0

    @property
    def weight(self) -> float:
        return float(len(self._train))

    def loss(self, population: Population) -> Losses:
        """Mean cross-entropy over the training examples, `[P, n]` -> `[P]`."""
        return cross_entropy(self._score(self._train_parts, population), self._train.labels)

    def each(self, population: Population, perturbation: Perturbation | None = None) -> npt.NDArray[np.float64]:
        """The cross-entropy on each training example; perturbed inputs are registered, and let go again."""
        if perturbation is None:
            return cross_entropies(self._score(self._train_parts, population), self._train.labels)
        parts = self._register(self._train, perturbation)
        try:
            return cross_entropies(self._score(parts, population), self._train.labels)
        finally:
            for part in parts:
                self._ptm.release(part.id)

    def expansion(self, population: Population) -> Expansion:
        """The loss in the span of a population `[1 + P, n]` and of the offsets; costs the queries of `loss`."""
        dim, offsets = self._space.dim, self._space.offsets
        scores = self._score(self._train_parts, population)
        nothing = np.zeros((offsets, 1, scores.shape[2]), np.float32)
        shifts = self._space.shifted(nothing, np.eye(dim)[dim - offsets :])[:, 0]
        return expansion(scores, shifts, self._train.labels)

    def measure(self, z: npt.NDArray[np.float32]) -> Metrics:
        """Loss and hits of the prompt z `[n]`, summed over the dev examples."""
        scores = self._score(self._dev_parts, z[None].astype(np.float64))
        count = len(self._dev)
        return {
            "dev_loss": float(cross_entropy(scores, self._dev.labels)[0]) * count,
            "dev_correct": float(correct(scores, self._dev.labels)[0]),
            "dev_count": float(count),
        }

    def _register(self, data: LabelledExamples, perturbation: Perturbation | None = None) -> list[_Part]:
        """As many handles as it takes, so that the prompts for the examples of one fit into a message."""
        examples, room = fit(data.examples, self._card.image_shape), self._space.prompt_tokens
        size = min(self._card.max_examples, self._card.max_pairs)
        parts = [examples.take(np.arange(start, min(start + size, len(data)))) for start in range(0, len(data), size)]
        handles = [self._ptm.register_examples(self._task_id, part, room, perturbation) for part in parts]
        return [_Part(handle.id, part) for handle, part in zip(handles, parts, strict=True)]

    def _score(self, parts: Sequence[_Part], population: Population) -> Scores:
        return np.concatenate([self._score_part(part, population) for part in parts], axis=1)

    def _score_part(self, part: _Part, population: Population) -> Scores:
        scores = []
        size = min(self._card.max_prompts, self._card.max_pairs // len(part.examples))
        for start in range(0, len(population), size):
            z = population[start : start + size]
            scored = self._ptm.score(part.id, self._space.prompts(z, part.examples))
            self.queries += scored.scores.shape[0] * scored.scores.shape[1]
            scores.append(self._space.shifted(scored.scores, z))
        return np.concatenate(scores)
