"""The local loss as a function of candidates: the PTM's answers and the labels.

Labels stay in this process, unless the PTM answers with losses only, for which it needs them. The only place that
counts a client's queries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.data.images import fit
from fedbbpt.errors import InvalidData
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks.criterion import cross_entropies, expansion
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.tasks.sizes import examples_of_a_handle, prompts_of_a_call
from fedbbpt.types import (
    Array,
    Examples,
    Expansion,
    LabelledExamples,
    Losses,
    Metrics,
    Output,
    Perturbation,
    Population,
    Scores,
    TaskSpec,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Examples that the PTM service keeps, and their handle."""

    id: str
    data: LabelledExamples
    prompts: int
    """Of one call."""


class LocalObjectives:
    """`interfaces.Objectives` over one client's training examples, and the measure of a prompt on its dev examples.

    Where the PTM gives classes only, the loss is the share of wrong answers.
    """

    def __init__(
        self,
        ptm: Ptm,
        task: TaskSpec,
        space: PromptSpace,
        train: LabelledExamples,
        dev: LabelledExamples,
        *,
        scores_needed: bool = False,
    ) -> None:
        """`scores_needed`: whether `each` or `expansion` will be asked.

        Raises OutputWithheld where the PTM gives less than that, or than the offsets of the space, and InvalidData
        where it gives a loss only for more different examples than there are.
        """
        self._ptm, self._space = ptm, space
        self._card = ptm.describe()
        if scores_needed:
            require_scores(self._card.output, "the method")
        if space.offsets:
            require_scores(self._card.output, "a search of offsets")
        self._task_id, self._classes = ptm.register_task(task), len(task.classes)
        self.weight = float(len(train))
        """The number of training examples n_k."""
        self._train = self._register(train, "training examples")
        self._dev = self._register(dev, "dev examples")
        self.queries = 0

    def loss(self, population: Population) -> Losses:
        """The mean over the training examples, `[P, n]` -> `[P]`."""
        return self._judge(self._train, population).objective

    def each(self, population: Population, perturbation: Perturbation | None = None) -> npt.NDArray[np.float64]:
        """The cross-entropy on each training example; perturbed inputs are registered, and let go again."""
        if perturbation is None:
            return cross_entropies(self._scores(self._train, population), _labels(self._train))
        parts = [replace(part, id=self._keep(part.data, perturbation)) for part in self._train]
        try:
            return cross_entropies(self._scores(parts, population), _labels(parts))
        finally:
            for part in parts:
                self._ptm.release(part.id)

    def expansion(self, population: Population) -> Expansion:
        """The loss in the span of a population `[1 + P, n]` and of the offsets; costs the queries of `loss`."""
        dim, offsets = self._space.dim, self._space.offsets
        scores = self._scores(self._train, population)
        nothing = np.zeros((offsets, 1, scores.shape[2]), np.float32)
        shifts = self._space.shifted(nothing, np.eye(dim)[dim - offsets :])[:, 0]
        return expansion(scores, shifts, _labels(self._train))

    def measure(self, z: npt.NDArray[np.float32]) -> Metrics:
        """Loss and, where they are known, hits of the prompt z `[n]`, summed over the dev examples."""
        found = self._judge(self._dev, z[None].astype(np.float64))
        metrics = {"dev_loss": float(found.objective[0]) * found.examples, "dev_count": float(found.examples)}
        return metrics if found.correct is None else {**metrics, "dev_correct": float(found.correct[0])}

    def _register(self, data: LabelledExamples, name: str) -> list[_Part]:
        """In as many parts as it takes, so that the examples of one, and the prompts for them, fit into a message."""
        data = LabelledExamples(fit(data.examples, self._card.image_shape), data.labels)
        number = math.ceil(len(data) / examples_of_a_handle(self._card, data.examples))
        parts = [data.take(rows) for rows in np.array_split(np.arange(len(data)), max(1, number))]
        if self._card.output is Output.LOSS_ONLY:
            fewest = min(_different(part.examples) for part in parts)
            if fewest < self._card.min_examples:
                fix = f"at least {self._card.min_examples}: the PTM gives nothing but the mean loss over so many"
                raise InvalidData(f"{fewest} different ones", where=name, fix=fix)
        return [_Part(self._keep(part), part, self._prompts_of_a_call(part)) for part in parts]

    def _keep(self, data: LabelledExamples, perturbation: Perturbation | None = None) -> str:
        """The handle."""
        labels = data.labels if self._card.output is Output.LOSS_ONLY else None
        room = self._space.prompt_tokens
        return self._ptm.register_examples(self._task_id, data.examples, room, perturbation, labels).id

    def _prompts_of_a_call(self, data: LabelledExamples) -> int:
        one = self._space.prompts(np.zeros((1, self._space.dim)), data.examples)
        return prompts_of_a_call(self._card, one, len(data), self._classes)

    def _judge(self, parts: Sequence[_Part], population: Population) -> Judgement:
        answers = [self._ask(part, population) for part in parts]
        return judge(self._card.output, answers, [part.data.labels for part in parts])

    def _scores(self, parts: Sequence[_Part], population: Population) -> Scores:
        require_scores(self._card.output, "this")
        return np.concatenate([self._ask(part, population) for part in parts], axis=1)

    def _ask(self, part: _Part, population: Population) -> Array:
        """The PTM's answer for all candidates, with their offsets."""
        answers: list[Array] = []
        for start in range(0, len(population), part.prompts):
            z = population[start : start + part.prompts]
            scored = self._ptm.score(part.id, self._space.prompts(z, part.data.examples))
            self.queries += len(z) * len(part.data)
            answers.append(self._space.shifted(scored.scores, z) if scored.output.scores else scored.answer)
        return np.concatenate(answers)


def _labels(parts: Sequence[_Part]) -> npt.NDArray[np.int64]:
    return np.concatenate([part.data.labels for part in parts])


def _different(examples: Examples) -> int:
    if examples.images is not None:
        return len({image.tobytes() for image in examples.images})
    return len(set(zip(examples.texts, examples.pairs or examples.texts, strict=True)))
