"""A mapping from the classes of a task to the labels of a classifier that was trained for another one.

Frequency mapping (Tsai, Chen and Ho, arXiv 2007.08714): each class takes the label that the model gives most often for
the examples of the class, and no label is taken twice.
"""

import numpy as np

from fedbbpt.errors import InvalidData
from fedbbpt.tasks.criterion import Labels
from fedbbpt.types import Scores


def by_frequency(scores: Scores, labels: Labels, classes: int) -> tuple[int, ...]:
    """Returns the index of a label for each class.

    Pairs of class and label are chosen greedily, the pair with the largest share of the class's examples first. Among
    equal shares the lowest class, then the lowest label, comes first.

    Args:
        scores: the model's scores for its own labels `[B, K']`.
        labels: the classes of the examples in the task `[B]`.
        classes: K, the number of classes in the task.

    Raises:
        InvalidData: the model has fewer than K labels.
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
