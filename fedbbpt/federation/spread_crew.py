"""A crew whose clients are spread over several worker processes, on this machine or on a Ray cluster.

Member number i belongs to worker i modulo the number of workers, for the whole run, because a client keeps its
registered examples, and perhaps private arrays, where it is. An update does not depend on where it is computed, so the
bits are those of one process.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from fedbbpt.errors import ChildFailed, FedbbptError
from fedbbpt.federation.crew import TASKS_AT_A_TIME, CrewPart, CrewPlan
from fedbbpt.interfaces import Ptm
from fedbbpt.types import Arrays, Task, Update

OpenPtm = Callable[[], AbstractContextManager[Ptm]]
"""Opens the model in a worker; it is pickled."""
PARTS_AHEAD = 4
"""Parts of a round's tasks that workers may have begun before the updates of the first are wanted."""


class WorkerPart(CrewPart):
    """A worker's share of the clients, and the model, which stays open as long as the process lives."""

    def __init__(self, plan: CrewPlan, open_ptm: OpenPtm, first: int, step: int) -> None:
        """Opens the model and registers the examples. Raises what `CrewPlan.agents` raises."""
        self._resources = ExitStack()
        super().__init__(plan, self._resources.enter_context(open_ptm()), first, step)


class Worker(Protocol):
    """A process that holds a `WorkerPart`."""

    def call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        """Starts a call of a method of the part. Returns a function that waits for its result, or raises its error."""
        ...


class SpreadCrew:
    """Implements `crew.Crew` with workers."""

    def __init__(self, plan: CrewPlan, workers: Sequence[Worker], close: Callable[[], None]) -> None:
        """`close` ends the workers."""
        self._workers, self.close = workers, close
        self._places = {name: index % len(workers) for index, name in enumerate(plan.examples)}

    def answers(self, tasks: Sequence[Task]) -> Iterator[Sequence[Update]]:
        """Yields the updates in order, while the workers compute those of the next tasks."""
        parts = deque(tasks[start : start + TASKS_AT_A_TIME] for start in range(0, len(tasks), TASKS_AT_A_TIME))
        begun: deque[tuple[Sequence[Task], list[Callable[[], Any]]]] = deque()
        while parts or begun:
            while parts and len(begun) < PARTS_AHEAD:
                begun.append((parts[0], self._begin(parts.popleft())))
            part, results = begun.popleft()
            queues = [iter(result()) for result in results]
            yield [next(queues[self._places[task.id.client_id]]) for task in part]

    def _begin(self, tasks: Sequence[Task]) -> list[Callable[[], Any]]:
        shares: list[list[Task]] = [[] for _ in self._workers]
        for task in tasks:
            shares[self._places[task.id.client_id]].append(task)
        return [worker.call("answer", share) for worker, share in zip(self._workers, shares, strict=True)]

    def private(self) -> Mapping[str, Arrays]:
        """Returns the private arrays of all workers' clients."""
        results = [worker.call("private") for worker in self._workers]
        return {name: arrays for result in results for name, arrays in result().items()}


def ended() -> ChildFailed:
    """Returns the error of a worker that has ended, perhaps for lack of memory."""
    fix = "the same command again, which continues; fewer --processes if memory was short"
    return ChildFailed("a process with clients has ended", where="simulation", fix=fix)


def over_processes(open_ptm: OpenPtm, processes: int) -> Callable[[CrewPlan, Ptm], SpreadCrew]:
    """Returns what makes a crew of so many processes on this machine, each of which opens the model itself."""

    def crew(plan: CrewPlan, ptm: Ptm) -> SpreadCrew:
        with ExitStack() as resources:
            workers = [_Process(plan, open_ptm, index, processes) for index in range(processes)]
            for worker in workers:
                resources.callback(worker.end)
            for started in [worker.call("private") for worker in workers]:
                started()
            return SpreadCrew(plan, workers, resources.pop_all().close)
        raise AssertionError("an exit stack swallows no error")

    return crew


class _Process:
    """A worker that is a process of this machine."""

    def __init__(self, plan: CrewPlan, open_ptm: OpenPtm, first: int, step: int) -> None:
        # Not forked: threads of numerical libraries do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _make, (plan, open_ptm, first, step))

    def call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        future = self._pool.submit(_call, method, arguments)

        def result() -> Any:
            try:
                return future.result()
            except BrokenProcessPool:
                raise ended() from None

        return result

    def end(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_made: WorkerPart | FedbbptError
"""The part of this process, or why there is none."""


def _make(*arguments: Any) -> None:
    global _made
    try:
        _made = WorkerPart(*arguments)
    except FedbbptError as error:
        _made = error


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    if isinstance(_made, FedbbptError):
        raise _made
    return getattr(_made, method)(*arguments)
