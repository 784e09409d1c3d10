"""A federation in one process: the same coordinator, agents, methods, codecs and model, but no gRPC and no clock.

Not a second engine: it calls by function what the services call by wire, so that for the same seed it ends with the
same prompt, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from fedbbpt.client.agent import Agent
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.client.unmeasured import Unmeasured
from fedbbpt.codecs import CODECS
from fedbbpt.federation.splits import Splits
from fedbbpt.federation.white_boxes import AUXILIARY, check_shard, client_box, owner_box, write_auxiliary
from fedbbpt.interfaces import ClientHalf, Ptm, RunSettings
from fedbbpt.job.settings import client_name, make_coordinator, run_settings
from fedbbpt.methods import client_half, needs_scores, owner_half, white_box
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import OWNER, Hello, Report, Result, RunStatus, Task, Update


@dataclass(frozen=True, slots=True)
class Played:
    """A closed round: the status after it, and all that its clients were asked and answered, encoded as it travels."""

    status: RunStatus
    z: npt.NDArray[np.float32]
    """`[n]`, the prompt that the round began with and measured on dev data."""
    exchanges: tuple[tuple[Task, Update], ...]


class Simulation:
    """A run that is played round by round, for as long as somebody asks for the next.

    No time passes, so no deadline does: whoever is asked answers.
    """

    def __init__(self, splits: Splits, ptm: Ptm) -> None:
        job = splits.job
        check_shard(job, splits.server)
        self._coordinator = make_coordinator(job, run_settings(job, "simulation"), MemoryStore())
        self._clients: dict[str, tuple[ClientHalf, Agent]] = {}
        with TemporaryDirectory() as folder:
            auxiliary = Path(folder, AUXILIARY)
            if job.entry().white_box:
                write_auxiliary(job, splits.server, auxiliary)
            for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
                session, settings = self._join(client_name(index), len(train))
                objectives = LocalObjectives(
                    ptm, settings.task, settings.space, train, dev, scores_needed=needs_scores(settings)
                )
                asked = client_box(settings, train, auxiliary) if white_box(settings) else objectives
                half = client_half(settings, asked)
                self._clients[session] = half, Agent(half, objectives, CODECS[settings.codec])
        if job.entry().owner_takes_part(job.method):
            session, settings = self._join(OWNER, len(splits.server))
            half = owner_half(settings, owner_box(settings, splits.server, job.ptm.model))
            self._clients[session] = half, Agent(half, Unmeasured(len(splits.server)), CODECS[settings.codec])

    def _join(self, name: str, examples: int) -> tuple[str, RunSettings]:
        return self._coordinator.join(Hello(name, "simulated", examples, frozenset(CODECS)), now=0.0)

    def rounds(self) -> Iterator[Played]:
        exchanges: list[tuple[Task, Update]] = []
        shown = 0
        while not self._coordinator.state.ended:
            for session, (half, agent) in self._clients.items():
                task = self._coordinator.task_for(session)
                if task is not None:
                    update = agent.answer(task)
                    exchanges.append((task, update))
                    self._coordinator.submit(session, task.id, update, now=0.0)
                if self._coordinator.reports(shown):
                    shown += 1
                    yield Played(self._coordinator.status(), half.prompt(exchanges[-1][0].arrays), tuple(exchanges))
                    exchanges = []

    def result(self) -> Result:
        """Raises NoResultYet."""
        return self._coordinator.result()


def simulate(splits: Splits, ptm: Ptm, watch: Callable[[RunStatus], None]) -> tuple[Result, tuple[Report, ...]]:
    """The result, and what each round measured; `watch` sees the status after each."""
    simulation = Simulation(splits, ptm)
    reports: list[Report] = []
    for played in simulation.rounds():
        watch(played.status)
        assert played.status.last is not None, "a round has closed"
        reports.append(played.status.last)
    return simulation.result(), tuple(reports)
