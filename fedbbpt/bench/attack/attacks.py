"""Lies that the coordinator cannot recognise as such: every update here is one that some client could have sent.

A liar pursues the opposite of the search: it reverses losses, directions and dev measurements. What it sends stays
within the ranges that the coordinator checks (`methods.update_rules`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import Array, Arrays, LabelledExamples, Measurement, Task, Update

SCALE = 1000.0
"""The factor of scaled lies. With it float16 can still hold them."""
LOSSES = frozenset({"loss", "losses", "dev_loss"})
"""The arrays that hold losses, which are not negative."""
KEPT = frozenset({"sigma", "sigmas", "hessian", "moments", "dev_weight"})
"""The arrays that a liar leaves as they are: others of them would be refused, or would change little."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of lie, the same for all liars of a run."""

    name: str
    label: Callable[[npt.NDArray[np.int64], int], npt.NDArray[np.int64]] = lambda labels, classes: labels
    """Returns the labels that a liar works with, for those that it has `[B]`, and the number of classes."""
    lie: Callable[[Update, Task, int], Update] = lambda update, task, classes: update
    """Returns what a liar sends in place of its decoded update."""

    def examples(self, data: LabelledExamples, classes: int) -> LabelledExamples:
        """Returns the examples that a liar works with."""
        return LabelledExamples(data.examples, self.label(data.labels, classes))


def reversed_update(update: Update, task: Task, classes: int, scale: float = 1.0) -> Update:
    """Returns the update of a client that wants the opposite, `scale` times as much."""
    weight = update.weight
    return replace(
        update,
        arrays={name: _reversed(name, array, task.arrays, weight, scale) for name, array in update.arrays.items()},
        measurement=_opposite(update.measurement, scale, classes),
        finalists=tuple(_opposite(each, scale, classes) for each in update.finalists),
    )


def _reversed(name: str, array: Array, broadcast: Arrays, weight: float, scale: float) -> Array:
    if name in KEPT:
        return array
    if name in LOSSES:
        # The best candidate has the loss of the worst, so that no loss is negative.
        return np.asarray(scale * (array.max() + array.min() - array if array.size > 1 else array))
    start = weight * broadcast[name] if name in broadcast and broadcast[name].shape == array.shape else 0.0
    return np.asarray(start - scale * (array - start))


def _opposite(measured: Measurement, scale: float, classes: int) -> Measurement:
    """Returns a measurement that is good where the true one is bad."""
    count, correct = measured.dev_examples, measured.dev_correct
    loss = scale * max(2 * count * np.log(classes) - measured.dev_loss_sum, 0.0)
    return replace(measured, dev_loss_sum=float(loss), dev_correct=None if correct is None else count - correct)


def _made_up(update: Update, task: Task, classes: int) -> Update:
    """Returns the update of a client that has not worked: losses by chance, and the point that it was sent."""
    rng = seeds.rng(task.seed, "free rider", task.id.client_id)
    count = update.measurement.dev_examples
    guess = Measurement(count * float(np.log(classes)), count, count // classes, 0)

    def made_up(name: str, array: Array) -> Array:
        if name in LOSSES:
            return np.asarray(update.weight * np.log(classes) * rng.uniform(0.9, 1.1, array.shape))
        if name in task.arrays and task.arrays[name].shape == array.shape:
            return np.asarray(update.weight * task.arrays[name].astype(np.float64))
        return array if name in KEPT else np.zeros_like(array)

    arrays = {name: made_up(name, array) for name, array in update.arrays.items()}
    return replace(update, arrays=arrays, measurement=guess, finalists=(guess,) * len(update.finalists))


ATTACKS: Mapping[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("sign-flip", lie=reversed_update),
        Attack("scaled", lie=lambda update, task, classes: reversed_update(update, task, classes, SCALE)),
        Attack("label-flip", label=lambda labels, classes: (labels + 1) % classes),
        Attack("free-rider", lie=_made_up),
    )
}
"""The attacks by name."""
