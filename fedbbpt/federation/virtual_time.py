"""Virtual time: clients of a simulation that take time for a task, so that synchronous and asynchronous runs compare.

A task takes a client so many virtual seconds; nobody waits for them. Events happen in the order of their times, and of
the clients' ids at one time, so the course of a run depends only on its seed and on how long tasks take.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TypeAlias

from fedbbpt import seeds
from fedbbpt.federation.crew import Crew
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.hosted_run import Submission
from fedbbpt.types import Task, Update

SPREAD = 0.5
"""Standard deviation of the logarithm of the clients' times: one client in six takes more than 1.6 s for a task."""

Pace: TypeAlias = Callable[[Task], float]
"""Returns the virtual seconds that a client takes for a task, above 0."""


def drawn_pace(seed: int) -> Pace:
    """Returns a pace that is log-normal over the clients, with a median of one second; each client keeps its own."""

    def pace(task: Task) -> float:
        return math.exp(SPREAD * float(seeds.normals(seeds.derive(seed, "pace", task.id.client_id), (1,))[0]))

    return pace


class VirtualTime:
    """The clients of a run at their paces."""

    def __init__(self, coordinator: Coordinator, crew: Crew, sessions: Mapping[str, str], pace: Pace) -> None:
        """Opens the streams of all clients. `sessions` are theirs by client id."""
        self._coordinator, self._crew, self._sessions, self._pace = coordinator, crew, sessions, pace
        self._now = 0.0
        self._idle = set(sessions)
        self._at_work: list[tuple[float, str, Task, Update]] = []
        """A heap of the answers by the times when they arrive."""
        self._seen: int | None = None
        for session in sessions.values():
            coordinator.connected(session)

    def steps(self) -> Iterator[list[tuple[Task, Update]]]:
        """Yields the answers that have arrived, each time after the coordinator took them, until the run has ended."""
        while not self._coordinator.state.ended:
            self._hand_out()
            due = self._coordinator.next_deadline()
            if self._at_work and (due is None or self._at_work[0][0] < due):
                yield self._arrive()
            else:
                assert due is not None, "an open round has a deadline"
                self._now = due
                self._coordinator.tick(self._now)
                yield []

    def _hand_out(self) -> None:
        """Gives their tasks to the clients that are free and have one."""
        if self._seen == self._coordinator.tasks_version:
            return
        self._seen = self._coordinator.tasks_version
        free = [(client_id, self._coordinator.task_for(self._sessions[client_id])) for client_id in sorted(self._idle)]
        tasks = [task for _, task in free if task is not None]
        for task, update in zip(tasks, chain.from_iterable(self._crew.answers(tasks)), strict=True):
            self._idle.remove(task.id.client_id)
            heapq.heappush(self._at_work, (self._now + self._pace(task), task.id.client_id, task, update))

    def _arrive(self) -> list[tuple[Task, Update]]:
        """Submits the answers of one time, at most as many as the open round waits for."""
        self._now, most = self._at_work[0][0], max(1, self._coordinator.missing)
        arrived: list[tuple[Task, Update]] = []
        while self._at_work and self._at_work[0][0] == self._now and len(arrived) < most:
            _, client_id, task, update = heapq.heappop(self._at_work)
            arrived.append((task, update))
            self._idle.add(client_id)
        submissions = [Submission(self._sessions[task.id.client_id], task.id, update) for task, update in arrived]
        for answer in self._coordinator.submit_all(submissions, self._now):
            if isinstance(answer, Exception):
                raise answer
        return arrived
