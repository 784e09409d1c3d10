"""The model as the front sees it: it is on other processes, and perhaps other machines."""

import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbbpt.ptm.ray.model import Inputs, Pairs, Shipped
from fedbbpt.types import Examples, MicroBatch, ModelCard, Perturbation, Prompts, Scores, TaskSpec

TASKS = 1024
"""Whose columns are remembered."""
MOST_PARTS = 4
"""Micro-batches of a piece: between two of them a call can be given up."""
FEWEST_PIECES = 3
"""Of a job, for each thread: with fewer, the last ones would leave replicas idle."""


class Replicas(Protocol):
    """Several `model.Model`s, of which the least busy one is asked."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Raises what the method raises, PtmUnavailable where no replica answers. Called by any thread."""
        ...

    def ship(self, pairs: Pairs) -> Awaitable[Pairs]:
        """Puts them where every replica can fetch them, for as long as the front holds what is returned."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """Stands for a tokenised input, which only replicas have."""

    inputs: Inputs
    index: int
    tokens: int
    identity: bytes
    nbytes: int
    """That the front keeps for it, about."""


@dataclass(frozen=True, slots=True)
class Piece(MicroBatch):
    """Micro-batches that travel together: a call costs as much as some hundred tokens of a small model."""

    parts: Sequence[MicroBatch]


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """Implements interfaces.Job."""

    batches: Sequence[Piece]
    shipped: Shipped
    replicas: Replicas

    def run(self, batch: MicroBatch) -> Scores:
        assert isinstance(batch, Piece), "a job runs its own"
        scores: Scores = self.replicas.call("run", self.shipped, batch.parts)
        return scores


class ReplicatedBackend:
    """Implements interfaces.Backend by replicas of another one, and gives the same bits: a pair's scores do not depend
    on where it is computed. `threads` micro-batches keep all replicas busy. Calls raise PtmUnavailable besides.
    """

    def __init__(self, replicas: Replicas, *, threads: int) -> None:
        """Raises what loading the model raises."""
        self.threads = threads
        self._replicas = replicas
        self._card, self.hidden_size = replicas.call("card")
        self._columns = lru_cache(TASKS)(lambda task: replicas.call("columns", task))

    def describe(self) -> ModelCard:
        card: ModelCard = self._card
        return card

    def check(self, task: TaskSpec) -> None:
        self.columns(task)

    def columns(self, task: TaskSpec) -> frozenset[str]:
        columns: frozenset[str] = self._columns(task)
        return columns

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[Row]:
        inputs = Inputs(secrets.token_hex(16), task, examples, prompt_tokens, perturbation)
        told, nbytes = self._replicas.call("prepare", inputs), inputs.bytes // len(examples)
        return [Row(inputs, index, tokens, identity, nbytes) for index, (tokens, identity) in enumerate(told)]

    def tokens(self, row: Row) -> int:
        return row.tokens

    def identity(self, row: Row) -> bytes:
        return row.identity

    def job(self, task: TaskSpec, prompts: Prompts, rows: Sequence[Row], wanted: npt.NDArray[np.bool_]) -> RemoteJob:
        inputs = {row.inputs.name: row.inputs for row in rows}
        numbers = {name: number for number, name in enumerate(inputs)}
        places = np.array([(numbers[row.inputs.name], row.index) for row in rows], np.int64)
        pairs = Pairs(task, prompts, tuple(inputs.values()), places, wanted, self._card.revision)
        shipped = Shipped(secrets.token_hex(16), self._replicas.ship(pairs))
        batches: Sequence[MicroBatch] = self._replicas.call("plan", shipped)
        size = min(MOST_PARTS, max(1, len(batches) // (FEWEST_PIECES * self.threads)))
        pieces = [_piece(batches[start : start + size]) for start in range(0, len(batches), size)]
        return RemoteJob(pieces, shipped, self._replicas)


def _piece(parts: Sequence[MicroBatch]) -> Piece:
    prompts, rows = (
        np.concatenate(arrays) for arrays in zip(*((part.prompts, part.rows) for part in parts), strict=True)
    )
    return Piece(prompts, rows, sum(part.tokens for part in parts), parts)
