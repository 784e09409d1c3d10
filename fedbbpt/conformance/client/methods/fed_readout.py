"""fed-readout: the sums of the broadcast readouts over a client's examples."""

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client.methods.answer import Answer, Asked
from fedbbpt.conformance.client.numbers import Vector

NOISE = 1e-9


def answer(asked: Asked) -> Answer:
    """Returns the arrays of a right update."""
    readouts = asked.arrays["readouts"].astype(np.float64)
    prompted = readouts.shape[2] - 1 > asked.fixed_columns
    train, dev = asked.parts()
    mean = asked.arrays["mean"]
    learnt = [*train, *dev] if "whole" in asked.arrays else train
    asked.require_columns(mean, [*train, *dev], prompted=prompted)
    columns = asked.columns(mean, learnt, prompted=prompted)
    losses, gradient = _sums(columns, readouts, [asked.labels[text] for text in learnt])
    dev_losses, _ = _sums(asked.columns(mean, dev, prompted=prompted), readouts, [asked.labels[text] for text in dev])
    weight = float(len(learnt))
    sums = {
        "loss": losses,
        "gradient": gradient,
        "moments": np.array([columns.sum(axis=0), (columns**2).sum(axis=0)]),
        "dev_loss": dev_losses,
        "dev_weight": np.array([float(len(dev))]),
    }
    return Answer({name: each / weight for name, each in sums.items()}, train, weight, dict.fromkeys(sums, NOISE))


def _sums(columns: Vector, readouts: Vector, labels: list[int]) -> tuple[Vector, Vector]:
    """Returns the losses `[R]` and the gradients `[R, K, w]` of readouts, summed over examples."""
    count, classes = readouts.shape[:2]
    losses, gradients = [], []
    with_one = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
    own: npt.NDArray[np.float64] = columns[:, :classes]
    for readout in readouts:
        logits = own + with_one @ readout.T
        logits = logits - logits.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(logits).sum(axis=1))
        losses.append((normaliser - logits[np.arange(len(labels)), labels]).sum())
        residual = np.exp(logits - normaliser[:, None]) - np.eye(classes)[labels]
        gradients.append(residual.T @ with_one)
    return np.array(losses), np.array(gradients).reshape(count, classes, -1)
