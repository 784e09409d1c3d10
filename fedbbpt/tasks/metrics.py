"""Metrics of a classifier's answers: the confusion matrix, and figures for each class."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]
"""Examples by true class and predicted class, `[K, K + 1]`. The last column counts examples without a prediction."""


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """How well one class is recognised. A figure is None where it is 0 divided by 0."""

    examples: int
    """The number of examples of the class."""
    precision: float | None
    """The share of right ones among the examples that were predicted to be of the class."""
    recall: float | None
    """The share of right predictions among the examples of the class."""
    f1: float | None
    """The harmonic mean of both: 2 TP / (2 TP + FP + FN)."""


def confusion(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Confusion:
    """Returns the confusion matrix of labels `[B]` and predictions `[B]`, which are below 0 where there is none.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, -1]), 2)
    array([[1, 1, 0],
           [0, 0, 1]])
    """
    counts = np.zeros((classes, classes + 1), np.int64)
    np.add.at(counts, (labels, np.where(predicted < 0, classes, predicted)), 1)
    return counts


def accuracy(counts: Confusion) -> float:
    """Returns the share of right predictions."""
    return float(np.trace(counts) / counts.sum())


def by_class(counts: Confusion) -> list[ClassMetrics]:
    """Returns the figures of each class."""
    found = []
    for index, row in enumerate(counts):
        right, examples, predicted = int(row[index]), int(row.sum()), int(counts[:, index].sum())
        precision, recall = _share(right, predicted), _share(right, examples)
        found.append(ClassMetrics(examples, precision, recall, _share(2 * right, predicted + examples)))
    return found


def macro_f1(counts: Confusion) -> float:
    """Returns the mean F1 over the classes that occur among the examples or the predictions."""
    known = [metrics.f1 for metrics in by_class(counts) if metrics.f1 is not None]
    return sum(known) / len(known)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
