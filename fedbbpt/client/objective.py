"""The local loss as a function of candidates: PTM scores and the labels that never leave this process.

The only place that counts a client's queries.
"""

import numpy as np
import numpy.typing as npt

from fedbbpt.interfaces import Objective, Ptm
from fedbbpt.tasks.criterion import correct, cross_entropy
from fedbbpt.types import (
    LabelledExamples,
    Losses,
    Metrics,
    Perturbation,
    Population,
    PromptSpace,
    Scores,
    TaskSpec,
)


class LocalObjectives:
    """`interfaces.Objectives` over one client's training examples, and the measure of a prompt on its dev examples."""

    def __init__(
        self, ptm: Ptm, task: TaskSpec, space: PromptSpace, train: LabelledExamples, dev: LabelledExamples
    ) -> None:
        self._ptm, self._space, self._train, self._dev = ptm, space, train, dev
        self._task_id = ptm.register_task(task)
        self._max_prompts = ptm.describe().max_prompts
        self._train_id = self._register(train)
        self._dev_id = self._register(dev)
        self.queries = 0

    @property
    def weight(self) -> float:
        return float(len(self._train))

    def loss(self, population: Population) -> Losses:
        """Mean cross-entropy over the training examples, `[P, n]` -> `[P]`."""
        return cross_entropy(self._score(self._train_id, population), self._train.labels)

    def perturbed(self, perturbation: Perturbation) -> Objective:
        """The same on perturbed inputs; each call of the objective registers them and lets them go again."""

        def loss(population: Population) -> Losses:
            examples_id = self._register(self._train, perturbation)
            try:
                return cross_entropy(self._score(examples_id, population), self._train.labels)
            finally:
                self._ptm.release(examples_id)

        return loss

    def measure(self, z: npt.NDArray[np.float32]) -> Metrics:
        """Loss and hits of the prompt z `[n]`, summed over the dev examples."""
        scores = self._score(self._dev_id, z[None].astype(np.float64))
        count = len(self._dev)
        return {
            "dev_loss": float(cross_entropy(scores, self._dev.labels)[0]) * count,
            "dev_correct": float(correct(scores, self._dev.labels)[0]),
            "dev_count": float(count),
        }

    def _register(self, data: LabelledExamples, perturbation: Perturbation | None = None) -> str:
        prompt_tokens = self._space.projection.tokens
        return self._ptm.register_examples(self._task_id, data.examples, prompt_tokens, perturbation).id

    def _score(self, examples_id: str, population: Population) -> Scores:
        parts = []
        for start in range(0, len(population), self._max_prompts):
            z = population[start : start + self._max_prompts]
            scored = self._ptm.score(examples_id, self._space.prompts(z))
            self.queries += scored.scores.shape[0] * scored.scores.shape[1]
            parts.append(self._space.shifted(scored.scores, z))
        return np.concatenate(parts)
