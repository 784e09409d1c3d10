"""The client's loop: for each task, the method's half computes an update, which is encoded, saved and submitted."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.client.batches import ALL_EXAMPLES
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.shares import Shares
from fedbbpt.codecs.top_k import encoded_with_feedback
from fedbbpt.codecs.travelling import packed, unit
from fedbbpt.errors import ChecksumMismatch, DeadlineExceeded, Overloaded, RateLimited, StoreError, Unavailable
from fedbbpt.interfaces import ClientHalf, Codec, Link
from fedbbpt.methods import readout_rounds
from fedbbpt.secure import fixed_point
from fedbbpt.types import FINALISTS, Arrays, Measurement, Phase, Receipt, Sampling, Task, TaskId, Truncation, Update
from fedbbpt.wire.tracing import span

log = logging.getLogger(__name__)


class DevObjective(Protocol):
    """The measure of a broadcast prompt on a client's dev examples, as `client.objective.LocalObjectives` has it."""

    @property
    def weight(self) -> float:
        """The number of local training examples n_k."""
        ...

    @property
    def queries(self) -> int:
        """The number of queries that this client has sent to the PTM so far."""
        ...

    @property
    def truncation(self) -> Truncation | None:
        """The client's examples whose texts the PTM truncates; None if it does not tell."""
        ...

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the measurement of the prompt z `[n]` on the run's dev sample, without the number of queries."""
        ...

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> Sequence[Measurement]:
        """Returns the measurements of prompts `[F, n]` on all dev examples, without the number of queries."""
        ...


_LOST = "codec lost "
"""What the names of the private arrays begin with that the codec keeps. They are not the method's."""


def _divided(private: Arrays) -> tuple[Arrays, Arrays]:
    """Returns the private arrays of the codec and those of the method."""
    lost = {name.removeprefix(_LOST): array for name, array in private.items() if name.startswith(_LOST)}
    return lost, {name: array for name, array in private.items() if not name.startswith(_LOST)}


class NoDevExamples:
    """The dev objective of the model's owner, which has no dev examples: the clients measure the prompt."""

    queries = 0
    truncation: Truncation | None = None

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def measure(self, z: npt.NDArray[np.float32]) -> Measurement:
        """Returns the sums over no examples."""
        return Measurement()

    def measure_all(self, prompts: npt.NDArray[np.float32]) -> Sequence[Measurement]:
        """Returns the sums over no examples for each prompt."""
        return [Measurement()] * len(prompts)


class Agent:
    """Answers tasks. It does not know how tasks arrive or where the PTM is."""

    def __init__(
        self,
        half: ClientHalf,
        dev: DevObjective,
        codec: Codec,
        keepsake: Keepsake | None = None,
        sampling: Sampling = ALL_EXAMPLES,
        private: Arrays | None = None,
        *,
        secure: bool = False,
        shares: Shares | None = None,
    ) -> None:
        """
        Args:
            half: the client's half of the run's method.
            dev: the measure of a prompt on the client's dev examples.
            codec: the codec of the run.
            keepsake: the client's files; without them a restarted client computes its last update again.
            sampling: the rounds that measure the broadcast prompt.
            private: the private arrays after the last answer, if they are not in the keepsake.
            secure: whether the run sums its updates by secure aggregation, as numbers of fixed point.
            shares: the client's part of the run's noise, if there is one.
        """
        self._secure, self._shares = secure, shares
        self._sampling = sampling
        self._half, self._dev, self._codec, self._keepsake = half, dev, codec, keepsake
        self._last: tuple[TaskId, Update] | None = None
        """The last answer of this process."""
        self._private = private
        """The client's private arrays after the last answer, counted or not; None until they are loaded."""

    def answer(self, task: Task) -> Update:
        """Returns the encoded update: a pure function of the task, the local data and the method's private arrays."""
        saved = self._keepsake.load(task.id) if self._keepsake else None
        if saved is not None:
            log.info("round %d: answered before; sending the same update again", task.id.round)
            return saved
        if self._shares is not None:
            if self._last is not None and self._last[0] == task.id:
                return self._last[1]
            self._shares.check(task.id, self._keepsake.last if self._keepsake else self._last and self._last[0])
        queries_before, private = self._dev.queries, self._private_arrays(task)
        measured = Measurement()
        if task.id.phase is Phase.EVALUATE:
            prompt = self._half.prompt(task.arrays)[None]
            prompts = np.concatenate([prompt, task.arrays.get(FINALISTS, prompt[:0])])
            measured, *finalists = self._dev.measure_all(prompts)
            found = Update({}, self._dev.weight, finalists=tuple(finalists))
        else:
            # A round that fits a readout asks for the columns of the dev examples anyway.
            if self._sampling.measures(task.id.round) or readout_rounds.fits(task.arrays):
                measured = self._dev.measure(self._half.prompt(task.arrays))
            lost, own = _divided(private)
            found, own = self._half.update(task, own)
            if self._shares is not None:
                found = self._shares.bounded(found)
            if self._secure:
                return self._answered(task, found, measured, queries_before, own)
            travelling = packed(found.arrays, found.weight, task.arrays)
            rounding, scale = seeds.rng(task.seed, "codec", task.id.client_id), found.weight / unit(found.weight)
            encoded, lost = encoded_with_feedback(self._codec, travelling, lost, scale, rounding)
            found, private = Update(encoded, found.weight), {**own, **{_LOST + name: lost[name] for name in lost}}
        return self._answered(task, found, measured, queries_before, private)

    def _answered(
        self, task: Task, found: Update, measured: Measurement, queries_before: int, private: Arrays
    ) -> Update:
        """Returns the update with its measurement, after it is saved with the private arrays."""
        measured = replace(measured, queries=self._dev.queries - queries_before)
        update = Update(found.arrays, found.weight, measured, finalists=found.finalists)
        if self._secure:
            shares = self._shares if task.id.phase is Phase.UPDATE else None
            values = fixed_point.encoded(update) if shares is None else shares.noisy(update)
            update = replace(update, arrays={fixed_point.VALUES: values.view(np.int64)})
        if self._keepsake:
            self._keepsake.save(task.id, update, private, flush=self._shares is not None)
        self._private, self._last = private, (task.id, update)
        return update

    def prompt(self, task: Task) -> npt.NDArray[np.float32]:
        """Returns the prompt z `[n]` that a task's round begins with."""
        return self._half.prompt(task.arrays)

    @property
    def queries(self) -> int:
        """The number of queries of this client so far: pairs of a prompt and an example."""
        return self._dev.queries

    @property
    def truncation(self) -> Truncation | None:
        """The client's examples whose texts the PTM truncates; None if it does not tell."""
        return self._dev.truncation

    @property
    def private(self) -> Arrays:
        """What the client keeps after the last answer: the method's private arrays, and what the codec lost."""
        return self._private or {}

    def _private_arrays(self, task: Task) -> Arrays:
        if self._private is None:
            self._private = self._keepsake.load_private(task.id.run_id) if self._keepsake else {}
        return self._private

    def run(self, link: Link, wait: Callable[[], Any]) -> int:
        """Answers all tasks of a link and returns how many updates were counted.

        `wait` is called after each attempt that failed because the PTM is unavailable or busy, or the disk is full.
        """
        counted = 0
        for task in link.tasks():
            own: dict[str, str | int] = {
                "client": task.id.client_id,
                "round": task.id.round,
                "phase": task.id.phase.value,
            }
            with span("task", task.traceparent, **own):
                update = self._answer_patiently(task, link, wait)
                with span("submit"):
                    receipt = link.submit(task.id, update)
            log.info("round %d: %s", task.id.round, receipt.value)
            counted += receipt is Receipt.COUNTED
        return counted

    def _answer_patiently(self, task: Task, link: Link, wait: Callable[[], Any]) -> Update:
        for attempt in count(1):
            try:
                return self.answer(task)
            except (Unavailable, Overloaded, RateLimited, StoreError, DeadlineExceeded, ChecksumMismatch) as error:
                if attempt.bit_count() == 1:  # the first, the second, the fourth, the eighth, ...
                    log.warning("round %d: %s; trying again", task.id.round, error)
                    # Rounds do not wait for clients in trouble, and a connection that lost one call is none yet.
                    if attempt > 1 or not isinstance(error, (DeadlineExceeded, ChecksumMismatch)):
                        link.report_trouble(f"{type(error).__name__}: {error}")
                wait()
        raise AssertionError("count never ends")
