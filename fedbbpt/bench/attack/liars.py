"""The clients of a simulation, some of whom lie."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedbbpt.bench.attack.attacks import Attack
from fedbbpt.codecs import codec_of
from fedbbpt.codecs.travelling import packed, unpacked
from fedbbpt.federation import assemble
from fedbbpt.federation.crew import CrewPlan, LocalCrew
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.methods import client_method
from fedbbpt.types import Phase, Task, Update


def with_liars(splits: Splits, attack: Attack, liars: int) -> Splits:
    """Returns the splits with the examples that the last `liars` clients work with."""
    classes, honest = len(splits.job.task.labels), len(splits.train) - liars
    parts = [
        tuple(part if index < honest else attack.examples(part, classes) for index, part in enumerate(each))
        for each in (splits.train, splits.dev)
    ]
    return replace(splits, train=parts[0], dev=parts[1])


class LyingCrew(LocalCrew):
    """A crew of which the last `liars` clients lie."""

    def __init__(self, plan: CrewPlan, ptm: Ptm, attack: Attack, liars: int) -> None:
        """Registers the examples of all clients with `ptm`. Raises what `CrewPlan.agents` raises."""
        super().__init__(plan, ptm)
        self._attack, self._settings = attack, plan.settings
        self._method = client_method(plan.settings, [plan.splits.job.definition()])
        self._codec = codec_of(plan.settings.codec, kept=plan.settings.kept, point=self._method.point)
        clients = len(plan.splits.train)
        self._liars = {assemble.client_name(index) for index in range(clients - liars, clients)}

    def answer(self, tasks: Sequence[Task]) -> list[Update]:
        """Returns the updates of tasks, in order, with lies in place of those of the liars."""
        answers = zip(tasks, super().answer(tasks), strict=True)
        return [self._lie(task, update) if task.id.client_id in self._liars else update for task, update in answers]

    def _lie(self, task: Task, update: Update) -> Update:
        shapes = self._method.sums(task.arrays) if task.id.phase is Phase.UPDATE else {}
        decoded = unpacked(self._codec.decode(update.arrays, shapes), update.weight, task.arrays)
        lie = self._attack.lie(replace(update, arrays=decoded), task, len(self._settings.labels))
        encoded = self._codec.encode(packed(lie.arrays, lie.weight, task.arrays), np.random.default_rng(task.seed))
        return replace(lie, arrays=encoded)
