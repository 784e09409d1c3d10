"""A replica: one copy of the model, and the work that the front gives it.

Every request is self-contained, so that any replica can serve it, even one that has just started. A replica caches what
it made of earlier requests, tokenised rows and planned jobs.
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
from fedbbpt.interfaces import Backend, ScoringJob
from fedbbpt.types import ExampleKind, Examples, MicroBatch, ModelCard, Perturbation, Prompts, Scores, TaskSpec

T = TypeVar("T")

CACHED_JOBS = 32
"""Planned jobs that a replica caches: some for each tenant that is asking at the moment."""
CACHED_ROWS_BYTES = 1 << 30
"""Size of the inputs whose rows a replica caches."""
CACHE_SECONDS = 3600.0
"""Seconds that an entry is cached after its last use. Replicas do not learn when the front releases examples."""


@dataclass(frozen=True, slots=True)
class RowInputs:
    """The examples that rows are made of. Equal inputs of two callers have different names, and so share nothing."""

    name: str
    task: TaskSpec
    examples: Examples
    prompt_tokens: int
    perturbation: Perturbation | None

    @property
    def bytes(self) -> int:
        """Estimated memory of the inputs and their rows."""
        if self.examples.kind is ExampleKind.IMAGES:
            return self.examples.pixels().nbytes
        texts = (*self.examples.texts, *(self.examples.pairs or ()))
        return sum(300 + 10 * len(text) for text in texts)


@dataclass(frozen=True, slots=True)
class JobInputs:
    """The prompts and rows that a job is made of."""

    task: TaskSpec
    prompts: Prompts
    inputs: Sequence[RowInputs]
    rows: npt.NDArray[np.int64]
    """For each of B rows, its index in `inputs` and its index within those `[B, 2]`."""
    wanted: npt.NDArray[np.bool_]
    """The pairs to compute `[P, B]`."""
    revision: str
    """The model's revision that the front expects."""


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A reference to job inputs in Ray's shared memory. A replica fetches them only if it has not cached the job."""

    name: str
    inputs: Awaitable[JobInputs]


class AsyncCache(Generic[T]):
    """Results by name, each computed once. Evicts the least recently used, and those unused for too long.

    For one event loop.
    """

    def __init__(self, max_size: int, seconds: float = CACHE_SECONDS) -> None:
        """`max_size` limits the sum of the sizes, `seconds` the time since an entry's last use."""
        self._max_size, self._size, self._seconds = max_size, 0, seconds
        self._entries: OrderedDict[str, tuple[asyncio.Task[T], int]] = OrderedDict()
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    async def get_or_compute(self, name: str, size: int, compute: Callable[[], Awaitable[T]]) -> T:
        """Returns the cached result, or that of `compute`. Concurrent calls wait for one computation.

        Raises what `compute` raises; a failure is not cached.
        """
        if name not in self._entries:
            self._entries[name] = asyncio.ensure_future(compute()), size
            self._size += size
            while self._size > self._max_size and len(self._entries) > 1:
                self._drop(next(iter(self._entries)))
        self._entries.move_to_end(name)
        if expiry := self._expiries.pop(name, None):
            expiry.cancel()
        self._expiries[name] = asyncio.get_running_loop().call_later(self._seconds, self._drop, name)
        task, _ = self._entries[name]
        try:
            return await asyncio.shield(task)
        except Exception:
            self._drop(name)
            raise

    def _drop(self, name: str) -> None:
        _, size = self._entries.pop(name, (None, 0))
        self._size -= size
        if expiry := self._expiries.pop(name, None):
            expiry.cancel()


class Replica:
    """Serves the front's requests with a backend. `backend.Replicas.call` calls its methods by name."""

    def __init__(self, load: Callable[[], Backend[Any]]) -> None:
        """Loads the model. Raises what `load` raises."""
        self._rows, self._jobs = AsyncCache[Sequence[Any]](CACHED_ROWS_BYTES), AsyncCache[ScoringJob](CACHED_JOBS)
        self._backend = load()
        self._card = self._backend.describe()
        self._threads = ThreadPoolExecutor(self._backend.threads, thread_name_prefix="forward")

    async def card(self) -> tuple[ModelCard, int]:
        """Returns the model's card and hidden size."""
        return self._card, self._backend.hidden_size

    async def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Checks the task and returns its columns (see `Backend.columns`). Raises InvalidTask."""

        def checked() -> tuple[tuple[str, ...], ...]:
            self._backend.check(task)
            return self._backend.columns(task)

        return await asyncio.to_thread(checked)

    async def prepare(self, inputs: RowInputs) -> list[tuple[int, bytes, int | None]]:
        """Tokenises the inputs and returns each row's length, identity and, if the backend tells, its cut tokens.

        Raises what `Backend.prepare` raises.
        """
        rows = await self._rows_of(inputs)
        known = self._backend
        return [(known.tokens(row), known.identity(row), getattr(row, "cut_tokens", None)) for row in rows]

    async def _rows_of(self, inputs: RowInputs) -> Sequence[Any]:
        async def compute() -> Sequence[Any]:
            # Copied, because arrays in shared memory are read-only, and stay there as long as anything refers to them.
            examples = deepcopy(inputs.examples)
            return await asyncio.to_thread(
                self._backend.prepare, inputs.task, examples, inputs.prompt_tokens, inputs.perturbation
            )

        return await self._rows.get_or_compute(inputs.name, inputs.bytes, compute)

    async def plan(self, shared: SharedJob) -> Sequence[MicroBatch]:
        """Returns the job's micro-batches, which any replica can run. Raises what `Backend.job` raises."""
        return (await self._job(shared)).batches

    async def run(self, shared: SharedJob, batches: Sequence[MicroBatch]) -> Scores:
        """Returns the scores of all pairs of the micro-batches, in their order `[N, K]`."""
        job = await self._job(shared)

        def computed() -> Scores:
            return np.concatenate([job.run(batch) for batch in batches])

        return await asyncio.get_running_loop().run_in_executor(self._threads, computed)

    async def _job(self, shared: SharedJob) -> ScoringJob:
        async def compute() -> ScoringJob:
            inputs = await shared.inputs
            if inputs.revision != self._card.revision:
                what = f"a replica has revision {self._card.revision}"
                raise RevisionChanged(what, where="revision", fix=f"{inputs.revision}, on every machine of the cluster")
            rows = [await self._rows_of(row_inputs) for row_inputs in inputs.inputs]
            chosen = [rows[i][b] for i, b in inputs.rows.tolist()]
            prompts, wanted = deepcopy((inputs.prompts, inputs.wanted))
            return await asyncio.to_thread(self._backend.job, inputs.task, prompts, chosen, wanted)

        return await self._jobs.get_or_compute(shared.name, 1, compute)
