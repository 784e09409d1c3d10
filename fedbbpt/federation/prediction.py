"""Predictions for inputs without labels: the probability of each class."""

import numpy as np
import numpy.typing as npt

from fedbbpt.client.asking import PromptScorer
from fedbbpt.types import Examples, LabelledExamples


def probabilities(scorer: PromptScorer, z: npt.NDArray[np.float32], examples: Examples) -> npt.NDArray[np.float64]:
    """Returns the probability of each class for each input under the prompt z `[n]`: `[B, K]`, rows that sum to 1.

    Raises:
        OutputWithheld: The PTM gives no scores.
    """
    unlabelled = LabelledExamples(examples, np.zeros(len(examples), np.int64))
    scores = scorer.scores(unlabelled, z[None], use_labels=False)[0].astype(np.float64)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: npt.NDArray[np.float64] = likely / likely.sum(axis=1, keepdims=True)
    return found
