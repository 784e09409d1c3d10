"""The loss of prompts on one client's examples, computed from the PTM's answers and the client's labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import PromptScorer, RegisteredPart
from fedbbpt.client.batches import ALL_EXAMPLES, Batches
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks import readout
from fedbbpt.tasks.criterion import cross_entropies, cross_entropy, expansion
from fedbbpt.tasks.judgement import Judgement, judge, require_scores
from fedbbpt.types import (
    Expansion,
    LabelledExamples,
    Losses,
    Measurement,
    Perturbation,
    Population,
    ReadoutSums,
    Sampling,
    Scores,
    TaskSpec,
)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a client's examples for a readout, which are asked once for each prompt."""

    asked: npt.NDArray[np.float32]
    """The z `[dim]` that was asked."""
    train: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
    """Columns `[B, C]` and labels `[B]`."""
    dev: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


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
        self._columns: _Columns | None = None

    @property
    def queries(self) -> int:
        """The number of queries so far: pairs of a prompt and an example."""
        return self._scorer.queries

    def loss(self, population: Population, draw: int) -> Losses:
        """Returns the mean loss `[P]` of each candidate `[P, n]` over the drawn training examples."""
        parts = self._train.drawn(draw)
        if self._scorer.card.output.scores:
            return cross_entropy(self._scores(parts, population), labels_of(parts))
        return self._judge(parts, population).objective

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the cross-entropy `[P, B]` of each candidate on each drawn training example.

        With a perturbation, the PTM scores perturbed copies of the examples. It keeps them until another draw or
        another perturbation takes their place, so that a search that asks for the same ones registers them once.
        """
        parts = self._train.drawn(draw, perturbation)
        return cross_entropies(self._scores(parts, population), labels_of(parts))

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Returns the loss in the span of a population `[1 + P, n]` and of the offsets, at the queries of `loss`."""
        parts = self._train.drawn(draw)
        return expansion(*self._expanded(parts, population), labels_of(parts))

    def _expanded(
        self, parts: Sequence[RegisteredPart], population: Population
    ) -> tuple[Scores, npt.NDArray[np.floating]]:
        """Returns the scores `[1 + P, B, K]` of prompts, and the shifts `[O, K]` of scores per unit of each offset."""
        dim, offsets = self._space.dim, self._space.offsets
        scores = self._scores(parts, population)
        nothing = np.zeros((offsets, 1, scores.shape[2]), np.float32)
        return scores, self._space.shifted(nothing, np.eye(dim)[dim - offsets :])[:, 0]

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the loss of the prompt z `[n]`, and its right answers if known, summed over the run's dev sample."""
        (measured,) = _measurements(self._judge(self._dev.batch(0), z[None].astype(np.float64)))
        return measured

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> list[Measurement]:
        """Returns the measurements of prompts `[F, n]`, each summed over all dev examples."""
        return _measurements(self._judge(self._dev.whole(), prompts.astype(np.float64)))

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Returns the sums of readouts `[R, K, C + 1]` over the examples whose columns under prompt z `[n]` are finite.

        Only the first call for a prompt asks the PTM, B queries for each view and B for the prompt, training and dev
        examples together. If C is m V, the readouts use no prompt, and none is asked.

        Raises:
            InvalidTensor: No training example has finite columns.
        """
        found_columns = self._both_columns(z, readouts)
        (columns, labels), (dev_columns, dev_labels) = found_columns.train, found_columns.dev
        if not len(labels):
            what = f"none of the {self.weight:.0f} training examples has scores that are all finite"
            raise InvalidTensor(what, where="scores", fix="a model, or a precision, that gives finite ones")
        found = readout.sums(columns, labels, readouts)
        if whole:
            found += readout.sums(dev_columns, dev_labels, readouts)
        dev_loss = readout.losses(dev_columns, dev_labels, readouts)
        return replace(found, dev_loss=dev_loss, dev_weight=float(len(dev_labels)))

    def _both_columns(self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating]) -> _Columns:
        """Returns the columns of the client's examples under prompt z `[n]`, which the PTM is asked for once."""
        space = self._space
        assert isinstance(space, ReadoutSpace), "only methods that have a readout ask for its sums"
        asked = space.asking(z, prompted=readouts.shape[2] - 1 == space.width)
        if self._columns is None or not np.array_equal(self._columns.asked, asked):
            train, dev = (self._columns_of(part.whole(), asked) for part in (self._train, self._dev))
            self._columns = _Columns(asked, train, dev)
        return self._columns

    def _columns_of(
        self, parts: Iterable[RegisteredPart], asked: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns the columns `[B, C]` and the labels `[B]` of the examples whose columns are finite."""
        found = [(self._scorer.columns(part, asked[None], use_labels=False)[0], part.data.labels) for part in parts]
        columns, labels = map(np.concatenate, zip(*found, strict=True))
        finite = np.isfinite(columns).all(axis=1)
        return columns[finite], labels[finite]

    def _judge(self, parts: Iterable[RegisteredPart], population: Population) -> Judgement:
        answers = [(self._scorer.ask(part, population), part.data.labels) for part in parts]
        return judge(self._scorer.card.output, *zip(*answers, strict=True))

    def _scores(self, parts: Sequence[RegisteredPart], population: Population) -> Scores:
        require_scores(self._scorer.card.output, "the method")
        answers = [self._scorer.ask(part, population) for part in parts]
        return answers[0] if len(answers) == 1 else np.concatenate(answers, axis=1)


def labels_of(parts: Sequence[RegisteredPart]) -> npt.NDArray[np.int64]:
    """Returns the labels `[B]` of the parts' examples together."""
    return parts[0].data.labels if len(parts) == 1 else np.concatenate([part.data.labels for part in parts])


def _measurements(found: Judgement) -> list[Measurement]:
    """Returns the sums over the judged examples, for each prompt."""
    correct = [None] * len(found.objective) if found.correct is None else map(int, found.correct)
    return [
        Measurement(float(loss) * found.examples, found.examples, right)
        for loss, right in zip(found.objective, correct, strict=True)
    ]
