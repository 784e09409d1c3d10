"""A client's part of the noise of a run with secure aggregation: it bounds its answers, and adds noise before masking.

A client trusts the coordinator with neither its answers nor the number of them. It answers no more rounds than the run
was announced with, and none again: two answers to one round, with different noise, would together have less of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import NotPrivate
from fedbbpt.privacy import shares
from fedbbpt.secure import fixed_point
from fedbbpt.types import Arrays, NoiseShare, Phase, TaskId, Update

_WHERE = "noise in shares"


@dataclass(frozen=True, slots=True)
class Shares:
    """What a client does with its answers to rounds that search."""

    noise: NoiseShare
    clip_norm: float
    """What the client's examples were clipped to; 0 if it clips its mean update."""
    rounds: int
    """The number of rounds that the noise pays for."""
    essential: Callable[[Arrays], Arrays]
    """Returns the part of an update's arrays that the method's steps use."""

    def check(self, task_id: TaskId, last: TaskId | None) -> None:
        """Raises NotPrivate if the client must not compute an answer to a task.

        Args:
            task_id: The task, which has no saved answer.
            last: The last task that the client answered; None if it answered none.
        """
        if task_id.phase is not Phase.UPDATE:
            return
        if task_id.round >= self.rounds:
            what = f"the coordinator asks for round {task_id.round} of a run whose noise pays for {self.rounds} rounds"
            raise NotPrivate(what, where=_WHERE, fix=f"rounds 0 to {self.rounds - 1}")
        if last is not None and last.run_id == task_id.run_id and last.round >= task_id.round:
            what = f"the coordinator asks for round {task_id.round} again, after round {last.round}"
            raise NotPrivate(what, where=_WHERE, fix="later rounds, since another answer would spend the budget twice")

    def bounded(self, update: Update) -> Update:
        """Returns what the client adds to the sum. Raises InvalidUpdate if it has too many numbers or examples."""
        return shares.bounded(update, self.essential, self.noise, self.clip_norm)

    def noisy(self, update: Update) -> npt.NDArray[np.uint64]:
        """Returns a bounded update as numbers of fixed point with noise, `[L]`."""
        numbers = sum(array.size for array in update.arrays.values())
        return shares.noisy(fixed_point.encoded(update, fixed_point.NOISE_ROOM), numbers, self.noise)
