"""Which of a classifier's own labels stands for which class of another task (Tsai, Chen and Ho, arXiv 2007.08714).

Frequency mapping: each class takes the label that the model most often answers its examples with, no label twice.
"""

import numpy as np

from fedbbpt.errors import InvalidData
from fedbbpt.tasks.criterion import Labels
from fedbbpt.types import Scores


def by_frequency(scores: Scores, labels: Labels, classes: int) -> tuple[int, ...]:
    """The label of each of K = `classes`, from the model's scores `[B, K']` and the examples' classes `[B]`.

    The pairs of class and label with the largest share of the class's examples come first; where shares are equal, the
    first class and label. Raises InvalidData where there are more classes than labels.
    """
    if classes > scores.shape[1]:
        fix = "a model with as many labels as the task has classes"
        raise InvalidData(f"{classes} classes, {scores.shape[1]} labels", where="task.classes", fix=fix)
    counts = np.zeros((classes, scores.shape[1]))
    np.add.at(counts, (labels, scores.argmax(axis=1)), 1.0)
    shares = counts / np.maximum(1, np.bincount(labels, minlength=classes))[:, None]
    chosen = np.full(classes, -1)
    for _ in range(classes):
        one, label = np.unravel_index(shares.argmax(), shares.shape)
        chosen[one] = label
        shares[one], shares[:, label] = -1.0, -1.0
    return tuple(int(label) for label in chosen)
