"""The client's shell: a task comes in, its method's half answers, the answer is encoded, kept, and submitted."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.client.unmeasured import Unmeasured
from fedbbpt.errors import Overloaded, RateLimited, StoreError, Unavailable
from fedbbpt.interfaces import ClientHalf, Codec, Link
from fedbbpt.types import Arrays, Phase, Receipt, Task, Update

log = logging.getLogger(__name__)


class Agent:
    """Answers tasks. Knows neither how they come nor where the PTM is."""

    def __init__(
        self, half: ClientHalf, objectives: LocalObjectives | Unmeasured, codec: Codec, keepsake: Keepsake | None = None
    ) -> None:
        self._half, self._objectives, self._codec, self._keepsake = half, objectives, codec, keepsake
        self._private: Arrays | None = None
        """What the method keeps here from task to task, whether or not its answers were counted; None: not loaded."""

    def answer(self, task: Task) -> Update:
        """The encoded update of a task: a pure function of the task, the local data and what the method keeps here."""
        kept = self._keepsake.load(task.id) if self._keepsake else None
        if kept is not None:
            log.info("round %d: answered before, sending the same bytes", task.id.round)
            return kept
        queries_before = self._objectives.queries
        metrics = dict(self._objectives.measure(self._half.prompt(task.arrays)))
        if task.id.phase is Phase.EVALUATE:
            update = Update({}, self._objectives.weight, metrics)
        else:
            found, self._private = self._half.update(task, self._kept_private(task))
            rounding = seeds.rng(task.seed, "codec", task.id.client_id)
            encoded = self._codec.encode(found.arrays, rounding)
            update = Update(encoded, found.weight, {**metrics, **found.metrics})
        queries = float(self._objectives.queries - queries_before)
        update = Update(update.arrays, update.weight, {**update.metrics, "queries": queries})
        if self._keepsake:
            self._keepsake.save(task.id, update, self._kept_private(task))
        return update

    def prompt(self, task: Task) -> npt.NDArray[np.float32]:
        """Returns the prompt z `[n]` that a task's round begins with."""
        return self._half.prompt(task.arrays)

    @property
    def queries(self) -> int:
        """The number of queries of this client so far: pairs of a prompt and an example."""
        return self._objectives.queries

    def _kept_private(self, task: Task) -> Arrays:
        if self._private is None:
            self._private = self._keepsake.load_private(task.id.run_id) if self._keepsake else {}
        return self._private

    def run(self, link: Link, wait: Callable[[], Any]) -> int:
        """Answers all tasks of a link; returns how many were counted. While the PTM is down or busy, it `wait`s."""
        counted = 0
        for task in link.tasks():
            receipt = link.submit(task.id, self._answer_patiently(task, wait))
            log.info("round %d: %s", task.id.round, receipt.value)
            counted += receipt is Receipt.COUNTED
        return counted

    def _answer_patiently(self, task: Task, wait: Callable[[], Any]) -> Update:
        while True:
            try:
                return self.answer(task)
            except (Unavailable, Overloaded, RateLimited, StoreError) as error:
                log.warning("round %d: %s; trying again", task.id.round, error)
                wait()
