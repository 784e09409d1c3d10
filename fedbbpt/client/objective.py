"""The loss of prompts on one client's examples, computed from the PTM's answers and the client's labels."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import PromptScorer, RegisteredPart
from fedbbpt.client.batches import ALL_EXAMPLES, Batches
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks.criterion import cross_entropies, expansion
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.types import (
    Expansion,
    LabelledExamples,
    Losses,
    Measurement,
    Perturbation,
    Population,
    Sampling,
    Scores,
    TaskSpec,
)


class LocalObjectives:
    """Implements `interfaces.Objectives` on a client's training examples, and measures prompts on its dev examples.

    If the PTM gives classes only, the loss is the share of wrong answers.
    """

    def __init__(
        self,
        ptm: Ptm,
        task: TaskSpec,
        space: PromptSpace,
        train: LabelledExamples,
        dev: LabelledExamples,
        *,
        sampling: Sampling = ALL_EXAMPLES,
        scores_needed: bool = False,
    ) -> None:
        """Registers the examples, or shows all of them to the PTM once, if the run scores batches of them.

        Args:
            ptm: The model to query.
            task: The template and the class texts.
            space: The space of the prompts.
            train: The examples that define the loss.
            dev: The examples that prompts are measured on.
            sampling: The examples of a generation, and of a round's dev measurement.
            scores_needed: Whether the method calls `each` or `expansion`.

        Raises:
            OutputWithheld: The PTM gives no scores, and the method, or the offsets or the readout of the space, need
                them.
            InvalidData: The PTM gives losses only, and over more different examples than a batch has.
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
        self._train = Batches(self._scorer, train, sampling, "training examples")
        self._dev = Batches(self._scorer, dev, sampling, "dev examples")
        self.truncation = self._scorer.truncation
        """The examples whose texts the PTM truncates; None if it does not tell."""

    @property
    def queries(self) -> int:
        """The number of queries so far: pairs of a prompt and an example."""
        return self._scorer.queries

    def loss(self, population: Population, draw: int) -> Losses:
        """Returns the mean loss `[P]` of each candidate `[P, n]` over the drawn training examples."""
        return self._judge(self._train.drawn(draw), population).objective

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the cross-entropy `[P, B]` of each candidate on each drawn training example.

        With a perturbation, the PTM scores perturbed copies of the examples. It keeps them until another draw or
        another perturbation takes their place, so that a search that asks for the same ones registers them once.
        """
        parts = self._train.drawn(draw, perturbation)
        return cross_entropies(self._scores(parts, population), _labels(parts))

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Returns the loss in the span of a population `[1 + P, n]` and of the offsets, at the queries of `loss`."""
        dim, offsets = self._space.dim, self._space.offsets
        parts = self._train.drawn(draw)
        scores = self._scores(parts, population)
        nothing = np.zeros((offsets, 1, scores.shape[2]), np.float32)
        shifts = self._space.shifted(nothing, np.eye(dim)[dim - offsets :])[:, 0]
        return expansion(scores, shifts, _labels(parts))

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the loss of the prompt z `[n]`, and its right answers if known, summed over the run's dev sample."""
        (measured,) = _measurements(self._judge(self._dev.batch(0), z[None].astype(np.float64)))
        return measured

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> list[Measurement]:
        """Returns the measurements of prompts `[F, n]`, each summed over all dev examples."""
        return _measurements(self._judge(self._dev.whole(), prompts.astype(np.float64)))

    def _judge(self, parts: Iterable[RegisteredPart], population: Population) -> Judgement:
        answers = [(self._scorer.ask(part, population), part.data.labels) for part in parts]
        return judge(self._scorer.card.output, *zip(*answers, strict=True))

    def _scores(self, parts: Sequence[RegisteredPart], population: Population) -> Scores:
        require_scores(self._scorer.card.output, "the method")
        return np.concatenate([self._scorer.ask(part, population) for part in parts], axis=1)


def _labels(parts: Sequence[RegisteredPart]) -> npt.NDArray[np.int64]:
    return np.concatenate([part.data.labels for part in parts])


def _measurements(found: Judgement) -> list[Measurement]:
    """Returns the sums over the judged examples, for each prompt."""
    correct = [None] * len(found.objective) if found.correct is None else map(int, found.correct)
    return [
        Measurement(float(loss) * found.examples, found.examples, right)
        for loss, right in zip(found.objective, correct, strict=True)
    ]
