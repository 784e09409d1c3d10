"""What a fit of a readout learns from labelled examples: sums over them, which add up over clients."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class ReadoutSums:
    """The cross-entropy of R readouts and its gradient, summed over examples. Sums of disjoint examples add.

    K classes are read out of C columns. A gradient's last column belongs to the offsets b.
    """

    loss: npt.NDArray[np.float64]
    """The loss of each readout in nats, summed over the training examples, `[R]`."""
    gradient: npt.NDArray[np.float64]
    """Its derivatives by D and b, `[R, K, C + 1]`."""
    moments: npt.NDArray[np.float64]
    """The sums of the columns and of their squares over the training examples, `[2, C]`."""
    weight: float
    """The number of training examples."""
    dev_loss: npt.NDArray[np.float64]
    """The loss summed over the dev examples, `[R]`."""
    dev_weight: float
    """The number of dev examples."""

    def __add__(self, other: "ReadoutSums") -> "ReadoutSums":
        """Returns the sums over the examples of both."""
        return ReadoutSums(
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.moments + other.moments,
            self.weight + other.weight,
            self.dev_loss + other.dev_loss,
            self.dev_weight + other.dev_weight,
        )
