"""What the model's owner measures, beside a client: nothing. The clients' dev data judge the prompt."""

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Metrics


class Unmeasured:
    """Stands where `client.objective.LocalObjectives` stands for a client."""

    queries = 0

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def measure(self, z: npt.NDArray[np.float32]) -> Metrics:
        return {"dev_loss": 0.0, "dev_correct": 0.0, "dev_count": 0.0}
