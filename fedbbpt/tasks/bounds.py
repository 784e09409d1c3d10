"""Scores of which only an upper bound is known, because the model's server told the likeliest tokens only.

The loss of an example is log sum_k exp(s_k) - s_y. If only a bound b >= s_y of the own class's score is known, the loss
at s_y = b is a lower limit of the true loss; a search that took it as the loss would be rewarded for bounds that rise,
and an example of which nothing is known, where all scores are the same bound, would cost only log K. If the score of
another class is a bound, the loss is an upper limit, which rewards nothing.
"""

import math

import numpy as np
import numpy.typing as npt

from fedbbpt.types import Scores

PENALTY_NATS = math.log(10)
"""An own class with a bound counts as ten times less likely than the bound."""


def pessimistic(scores: Scores, bounds: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> Scores:
    """Returns the scores with those of the own classes lowered by PENALTY_NATS where they are bounds.

    A label that the server tells is never less likely than one that it does not tell. So an example always costs less
    with a told label than with an untold one, and leaving the list of the told tokens never pays.

    Args:
        scores: `[P, B, K]`.
        bounds: which scores are upper bounds, `[P, B, K]`.
        labels: the examples' classes, `[B]`.
    """
    own = np.zeros(scores.shape, bool)
    rows = np.arange(len(labels))
    own[:, rows, labels] = bounds[:, rows, labels]
    return np.where(own, scores - np.float32(PENALTY_NATS), scores)
