"""fed-cma: the losses of the round's candidates, or the expansion of the loss in them."""

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import draws
from fedbbpt.conformance.client.methods.answer import Answer, Asked
from fedbbpt.conformance.client.numbers import Vector


def candidates(asked: Asked) -> npt.NDArray[np.float32]:
    """Returns the candidates `[P, n]`."""
    settings, arrays = asked.run.method.fed_cma, asked.arrays
    mean = arrays["mean"].astype(np.float64)
    if settings.candidates_sent:
        return arrays["candidates"]
    if not settings.expansion_sent:
        drawn = draws.normals(asked.task.seed, (settings.population, len(mean)))
        return (mean + arrays["scale"].astype(np.float64) * drawn).astype(np.float32)
    drawn = draws.normals(asked.task.seed, (settings.population - 1, len(mean)))
    others = (mean + float(arrays["scale"][0]) * drawn).astype(np.float32)
    others[:, len(mean) - asked.offsets :] = arrays["mean"][len(mean) - asked.offsets :]
    return np.concatenate([arrays["center"][None], others])


def answer(asked: Asked) -> Answer:
    """Returns the arrays of a right update."""
    population = candidates(asked)
    train = asked.texts_of(population[-1], f"candidate {len(population) - 1}")
    for index, z in enumerate(population):
        asked.require_scored(z, train, f"candidate {index}")
    if not asked.run.method.fed_cma.expansion_sent:
        means = np.array([asked.losses(z, train).mean() for z in population])
        return Answer({"losses": means}, train, float(asked.examples))
    mean = asked.arrays["mean"]
    asked.require_scored(mean, train, "the mean")
    return Answer(
        _expansion(asked, mean, population, train),
        train,
        float(asked.examples),
        {name: 1e-9 for name in ("decrease", "gradient", "hessian")},
    )


def _expansion(
    asked: Asked, mean: npt.NDArray[np.float32], population: npt.NDArray[np.float32], train: list[str]
) -> dict[str, Vector]:
    base = asked.scores(mean, train).astype(np.float64)
    moves = [asked.scores(z, train).astype(np.float64) - base for z in population]
    classes = base.shape[1]
    moves += [np.broadcast_to(0.25 * np.eye(classes)[k], base.shape) for k in range(asked.offsets)]
    p = np.exp(base - base.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    residual = p - np.eye(classes)[[asked.labels[text] for text in train]]
    gradient = np.array([(move * residual).sum() for move in moves]) / len(train)
    hessian = []
    for i, one in enumerate(moves):
        centred = one - (one * p).sum(axis=1, keepdims=True)
        hessian += [(centred * p * other).sum() / len(train) for other in moves[i:]]
    loss, decrease = asked.losses(mean, train).mean(), asked.losses(population[0], train).mean()
    return {
        "loss": np.array([loss]),
        "decrease": np.array([decrease - loss]),
        "gradient": gradient,
        "hessian": np.array(hessian),
    }
