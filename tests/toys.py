"""The base class of toy objectives: a client's losses in closed form, without a model."""

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Expansion, Losses, Perturbation, Population


class ToyObjectives:
    """A client's objectives. A subclass defines those that its test uses, most often `loss` alone."""

    weight = 1.0

    def loss(self, population: Population) -> Losses:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def each(self, population: Population, perturbation: Perturbation | None = None) -> npt.NDArray[np.float64]:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def expansion(self, population: Population) -> Expansion:
        """Raises NotImplementedError."""
        raise NotImplementedError
