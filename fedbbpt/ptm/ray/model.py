"""A replica: one copy of the model, and what the front has it do.

What travels to a replica says all that is needed to do it, so that any replica can, also one that has just begun. What
it has made of that, tokenised rows and planned jobs, it keeps for the next call, while there is room.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import RevisionChanged
from fedbbpt.interfaces import Backend, Job
from fedbbpt.types import Examples, MicroBatch, ModelCard, Perturbation, Prompts, Scores, TaskSpec

T = TypeVar("T")

JOBS = 32
"""That a replica keeps: some for each tenant that asks at the moment."""
ROWS_BYTES = 1 << 30
"""Of inputs whose rows a replica keeps."""
KEPT_SECONDS = 3600.0
"""Behind their last use, at most. A replica does not hear of it when the front lets inputs go."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What rows are made of. Equal inputs of two callers have different names, and so share nothing."""

    name: str
    task: TaskSpec
    examples: Examples
    prompt_tokens: int
    perturbation: Perturbation | None

    @property
    def bytes(self) -> int:
        """What they and their rows take, about."""
        if self.examples.images is not None:
            return self.examples.images.nbytes
        texts = (*self.examples.texts, *(self.examples.pairs or ()))
        return sum(300 + 10 * len(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a job is made of."""

    task: TaskSpec
    prompts: Prompts
    inputs: Sequence[Inputs]
    rows: npt.NDArray[np.int64]
    """`[B, 2]`: which of the inputs, and which of their rows."""
    wanted: npt.NDArray[np.bool_]
    """`[P, B]`"""
    revision: str
    """Of the model that is meant."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """Pairs that wait in Ray's shared memory to be fetched: most calls of a job do without."""

    name: str
    pairs: Awaitable[Pairs]


class Recent(Generic[T]):
    """What was made of late, each thing once, by name; for one event loop. What nobody has used for `seconds` goes."""

    def __init__(self, room: int, seconds: float = KEPT_SECONDS) -> None:
        self._room, self._taken, self._seconds = room, 0, seconds
        self._kept: OrderedDict[str, tuple[asyncio.Task[T], int]] = OrderedDict()
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    async def once(self, name: str, size: int, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` gives, or gave. What failed is forgotten."""
        if name not in self._kept:
            self._kept[name] = asyncio.ensure_future(make()), size
            self._taken += size
            while self._taken > self._room and len(self._kept) > 1:
                self._forget(next(iter(self._kept)))
        self._kept.move_to_end(name)
        if end := self._ends.pop(name, None):
            end.cancel()
        self._ends[name] = asyncio.get_running_loop().call_later(self._seconds, self._forget, name)
        task, _ = self._kept[name]
        try:
            return await asyncio.shield(task)
        except Exception:
            self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        _, size = self._kept.pop(name, (None, 0))
        self._taken -= size
        if end := self._ends.pop(name, None):
            end.cancel()


class Model:
    """What its asynchronous methods raise, their callers get."""

    def __init__(self, load: Callable[[], Backend[Any]]) -> None:
        """Raises what loading the model raises."""
        self._rows, self._jobs = Recent[Sequence[Any]](ROWS_BYTES), Recent[Job](JOBS)
        self._backend = load()
        self._card = self._backend.describe()
        self._threads = ThreadPoolExecutor(self._backend.threads, thread_name_prefix="forward")

    async def card(self) -> tuple[ModelCard, int]:
        """With the hidden size."""
        return self._card, self._backend.hidden_size

    async def columns(self, task: TaskSpec) -> frozenset[str]:
        """Raises InvalidTask."""

        def checked() -> frozenset[str]:
            self._backend.check(task)
            return self._backend.columns(task)

        return await asyncio.to_thread(checked)

    async def prepare(self, inputs: Inputs) -> list[tuple[int, bytes]]:
        """Of each row its length and its identity."""
        rows = await self._rows_of(inputs)
        return [(self._backend.tokens(row), self._backend.identity(row)) for row in rows]

    async def _rows_of(self, inputs: Inputs) -> Sequence[Any]:
        async def make() -> Sequence[Any]:
            # Copied: what lies in shared memory is read-only, and stays there as long as somebody looks at it.
            examples = deepcopy(inputs.examples)
            return await asyncio.to_thread(
                self._backend.prepare, inputs.task, examples, inputs.prompt_tokens, inputs.perturbation
            )

        return await self._rows.once(inputs.name, inputs.bytes, make)

    async def plan(self, shipped: Shipped) -> Sequence[MicroBatch]:
        """The micro-batches, which any replica can run. Raises what `Backend.job` raises."""
        return (await self._job(shipped)).batches

    async def run(self, shipped: Shipped, batches: Sequence[MicroBatch]) -> Scores:
        """Of the pairs of all of them, `[N, K]`."""
        job = await self._job(shipped)

        def computed() -> Scores:
            return np.concatenate([job.run(batch) for batch in batches])

        return await asyncio.get_running_loop().run_in_executor(self._threads, computed)

    async def _job(self, shipped: Shipped) -> Job:
        async def make() -> Job:
            pairs = await shipped.pairs
            if pairs.revision != self._card.revision:
                what = f"a replica has revision {self._card.revision}"
                raise RevisionChanged(what, where="revision", fix=f"{pairs.revision}, on every machine of the cluster")
            rows = [await self._rows_of(inputs) for inputs in pairs.inputs]
            chosen = [rows[i][b] for i, b in pairs.rows.tolist()]
            prompts, wanted = deepcopy((pairs.prompts, pairs.wanted))
            return await asyncio.to_thread(self._backend.job, pairs.task, prompts, chosen, wanted)

        return await self._jobs.once(shipped.name, 1, make)
