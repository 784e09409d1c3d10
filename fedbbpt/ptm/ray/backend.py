"""The front's backend: the model runs in the replicas, in other processes and perhaps on other machines."""

import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.ray.replica import JobInputs, RowInputs, SharedJob
from fedbbpt.types import Examples, MicroBatch, ModelCard, Perturbation, Prompts, Scores, TaskSpec

CACHED_TASKS = 1024
"""Tasks whose columns the front remembers."""
MAX_GROUP = 4
"""Micro-batches in a group. A call can be cancelled between two groups only."""
MIN_GROUPS = 3
"""Groups of a job for each thread. With fewer, replicas would be idle at the end of the job."""


class Replicas(Protocol):
    """Several `replica.Replica`s."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the least busy replica. Thread-safe.

        Raises:
            PtmUnavailable: No replica answers.
            FedbbptError: The error of the method.
        """
        ...

    def share(self, inputs: JobInputs) -> Awaitable[JobInputs]:
        """Puts the inputs where every replica can fetch them while the front holds the returned reference."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteRow:
    """Refers to a tokenised input that only the replicas hold."""

    inputs: RowInputs
    index: int
    """Index of the row in `inputs`."""
    tokens: int
    identity: bytes
    nbytes: int
    """Estimated memory in the front."""
    cut_tokens: int | None
    """Number of tokens that were cut off from the text; None if the backend does not tell."""


@dataclass(frozen=True, slots=True)
class BatchGroup(MicroBatch):
    """Micro-batches sent together, since a remote call costs as much as some hundred tokens of a small model."""

    batches: Sequence[MicroBatch]


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """Implements `interfaces.ScoringJob`."""

    batches: Sequence[BatchGroup]
    shared: SharedJob
    replicas: Replicas

    def run(self, batch: MicroBatch) -> Scores:
        assert isinstance(batch, BatchGroup), "a job runs its own groups"
        scores: Scores = self.replicas.call("run", self.shared, batch.batches)
        return scores


class ReplicatedBackend:
    """Implements `interfaces.Backend` with replicas of another backend.

    Scores are bit-identical to that backend's, because a pair's scores do not depend on where they are computed. Every
    method may also raise PtmUnavailable.
    """

    def __init__(self, replicas: Replicas, *, threads: int) -> None:
        """`threads` is the number of groups that keep all replicas busy. Raises what loading the model raises."""
        self.threads = threads
        self._replicas = replicas
        self._card, self.hidden_size = replicas.call("card")
        self._columns = lru_cache(CACHED_TASKS)(lambda task: replicas.call("columns", task))

    def describe(self) -> ModelCard:
        card: ModelCard = self._card
        return card

    def check(self, task: TaskSpec) -> None:
        self.columns(task)

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        columns: tuple[tuple[str, ...], ...] = self._columns(task)
        return columns

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[RemoteRow]:
        inputs = RowInputs(secrets.token_hex(16), task, examples, prompt_tokens, perturbation)
        rows, nbytes = self._replicas.call("prepare", inputs), inputs.bytes // len(examples)
        return [
            RemoteRow(inputs, index, tokens, identity, nbytes, cut)
            for index, (tokens, identity, cut) in enumerate(rows)
        ]

    def tokens(self, row: RemoteRow) -> int:
        return row.tokens

    def identity(self, row: RemoteRow) -> bytes:
        return row.identity

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[RemoteRow], wanted: npt.NDArray[np.bool_]
    ) -> RemoteJob:
        inputs = {row.inputs.name: row.inputs for row in rows}
        numbers = {name: number for number, name in enumerate(inputs)}
        positions = np.array([(numbers[row.inputs.name], row.index) for row in rows], np.int64)
        job_inputs = JobInputs(task, prompts, tuple(inputs.values()), positions, wanted, self._card.revision)
        shared = SharedJob(secrets.token_hex(16), self._replicas.share(job_inputs))
        batches: Sequence[MicroBatch] = self._replicas.call("plan", shared)
        size = min(MAX_GROUP, max(1, len(batches) // (MIN_GROUPS * self.threads)))
        groups = [_group(batches[start : start + size]) for start in range(0, len(batches), size)]
        return RemoteJob(groups, shared, self._replicas)


def _group(batches: Sequence[MicroBatch]) -> BatchGroup:
    prompts = np.concatenate([batch.prompts for batch in batches])
    rows = np.concatenate([batch.rows for batch in batches])
    return BatchGroup(prompts, rows, sum(batch.tokens for batch in batches), batches)
