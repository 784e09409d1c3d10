"""The loss of prompts on one client's examples, computed from the PTM's answers and the client's labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import PromptScorer, RegisteredPart
from fedbbpt.errors import InvalidData
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks.criterion import cross_entropies, expansion
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.types import (
    Expansion,
    LabelledExamples,
    Losses,
    Measurement,
    Output,
    Perturbation,
    Population,
    Scores,
    TaskSpec,
    Truncation,
)


class LocalObjectives:
    """Implements `interfaces.Objectives` on a client's training examples, and measures prompts on its dev examples.

    The examples stay registered with the PTM as long as the client lives. If the PTM gives classes only, the loss is
    the share of wrong answers.
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
        """Registers the examples.

        Args:
            ptm: The model to query.
            task: The template and the class texts.
            space: The space of the prompts.
            train: The examples that define the loss.
            dev: The examples that prompts are measured on.
            scores_needed: Whether the method calls `each` or `expansion`.

        Raises:
            OutputWithheld: The PTM gives no scores, and the method, or the offsets or the readout of the space, need
                them.
            InvalidData: The PTM gives losses only, and over more different examples than there are.
        """
        self._scorer, self._space = PromptScorer(ptm, task, space), space
        if scores_needed:
            require_scores(self._scorer.card.output, "the method")
        if space.offsets:
            require_scores(self._scorer.card.output, "a search of offsets")
        if space.views:
            require_scores(self._scorer.card.output, "a readout")
        self.weight = float(len(train))
        """The number of training examples, n_k."""
        self._train = self._register(train, "training examples")
        self._dev = self._register(dev, "dev examples")

    @property
    def queries(self) -> int:
        """The number of queries so far: pairs of a prompt and an example."""
        return self._scorer.queries

    @property
    def truncation(self) -> Truncation | None:
        """The examples whose texts the PTM truncates; None if it does not tell."""
        return self._scorer.truncation

    def loss(self, population: Population) -> Losses:
        """Returns the mean loss `[P]` of each candidate `[P, n]` over the training examples."""
        return self._judge(self._train, population).objective

    def each(self, population: Population, perturbation: Perturbation | None = None) -> npt.NDArray[np.float64]:
        """Returns the cross-entropy `[P, B]` of each candidate on each training example.

        With a perturbation, the PTM scores perturbed copies of the examples, which it keeps for this call only.
        """
        if perturbation is None:
            return self._cross_entropies(self._train, population)
        with self._scorer.perturbed(self._train, perturbation) as parts:
            return self._cross_entropies(parts, population)

    def expansion(self, population: Population) -> Expansion:
        """Returns the loss in the span of a population `[1 + P, n]` and of the offsets, at the queries of `loss`."""
        dim, offsets = self._space.dim, self._space.offsets
        scores = self._scores(self._train, population)
        nothing = np.zeros((offsets, 1, scores.shape[2]), np.float32)
        shifts = self._space.shifted(nothing, np.eye(dim)[dim - offsets :])[:, 0]
        return expansion(scores, shifts, _labels(self._train))

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the loss of the prompt z `[n]`, and its right answers if they are known, summed over dev examples."""
        found = self._judge(self._dev, z[None].astype(np.float64))
        correct = None if found.correct is None else int(found.correct[0])
        return Measurement(float(found.objective[0]) * found.examples, found.examples, correct)

    def _register(self, data: LabelledExamples, name: str) -> list[RegisteredPart]:
        parts, card = self._scorer.parts(data), self._scorer.card
        if card.output is Output.LOSS_ONLY:
            fewest = min(len(set(part.examples.digests())) for part in parts)
            if fewest < card.min_examples:
                fix = f"at least {card.min_examples}: the PTM gives only mean losses, over at least that many"
                raise InvalidData(f"{fewest} different ones", where=name, fix=fix)
        return [self._scorer.register(part) for part in parts]

    def _judge(self, parts: Sequence[RegisteredPart], population: Population) -> Judgement:
        answers = [self._scorer.ask(part, population) for part in parts]
        return judge(self._scorer.card.output, answers, [part.data.labels for part in parts])

    def _cross_entropies(self, parts: Sequence[RegisteredPart], population: Population) -> npt.NDArray[np.float64]:
        return cross_entropies(self._scores(parts, population), _labels(parts))

    def _scores(self, parts: Sequence[RegisteredPart], population: Population) -> Scores:
        require_scores(self._scorer.card.output, "the method")
        return np.concatenate([self._scorer.ask(part, population) for part in parts], axis=1)


def _labels(parts: Sequence[RegisteredPart]) -> npt.NDArray[np.int64]:
    return np.concatenate([part.data.labels for part in parts])
