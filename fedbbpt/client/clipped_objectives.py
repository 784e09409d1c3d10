"""The objectives of a client in a run that protects each of its examples: what an example adds is clipped."""

import numpy as np
import numpy.typing as npt

from fedbbpt.client.objective import LocalObjectives, labels_of
from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.tasks.clipping import clipped_expansion, clipped_gradient, relative_losses
from fedbbpt.tasks.judgement import require_scores
from fedbbpt.types import Expansion, LabelledExamples, Losses, Perturbation, Population, ReadoutSums, TaskSpec


class ClippedObjectives(LocalObjectives):
    """Objectives in which each training example adds a vector of norm `clip_norm` at most. No example is left out."""

    def __init__(
        self,
        ptm: Ptm,
        task: TaskSpec,
        space: PromptSpace,
        train: LabelledExamples,
        dev: LabelledExamples,
        *,
        clip_norm: float,
    ) -> None:
        """Registers the examples.

        Raises:
            OutputWithheld: The PTM gives no scores, of which the loss of each example is made.
        """
        super().__init__(ptm, task, space, train, dev)
        require_scores(self._scorer.card.output, "clipping what each example adds")
        self._clip_norm = clip_norm

    def loss(self, population: Population, draw: int) -> Losses:
        """Returns the mean clipped losses `[P]` of candidates `[P, n]`, relative to each example's own mean."""
        parts = self._train.drawn(draw)
        return relative_losses(self._scores(parts, population), labels_of(parts), self._clip_norm)

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Raises InvalidInput: no method that can protect examples asks for their losses one by one."""
        raise InvalidInput("losses of single examples are not clipped", where="privacy.level", fix='"client"')

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Returns the mean clipped expansion at prompts `[1 + P, n]`."""
        parts = self._train.drawn(draw)
        scores, shifts = self._expanded(parts, population)
        return clipped_expansion(scores, shifts, labels_of(parts), self._clip_norm)

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Returns the sum of the clipped gradients of one readout `[1, K, C + 1]`, and zeros for all other sums.

        Raises:
            InvalidInput: There are several readouts, or one is fitted to the dev examples as well.
        """
        if len(readouts) != 1 or whole:
            what = "the gradient of one readout on the training examples is all that is clipped"
            raise InvalidInput(what, where="privacy.level", fix="one ridge, and refit = false")
        columns, labels = self._both_columns(z, readouts).train
        gradient = clipped_gradient(columns, labels, readouts, self._clip_norm)
        return ReadoutSums(
            loss=np.zeros(1),
            gradient=gradient,
            moments=np.zeros((2, columns.shape[1])),
            weight=self.weight,
            dev_loss=np.zeros(1),
            dev_weight=0.0,
        )
