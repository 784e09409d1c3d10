"""A federation in one process: the same coordinator, agents, methods, codecs and model, but no gRPC and no clock.

The simulation is not a second engine: it calls as functions what the services call over the network. With the same
seed it ends with the same prompt, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from fedbbpt.client.agent import Agent
from fedbbpt.federation import assemble
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import run_settings
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import OWNER, Report, Result, RunStatus, Task, Update


@dataclass(frozen=True, slots=True)
class SimulatedRound:
    """A closed round: its report, the status after it, and every message of it as it would travel."""

    status: RunStatus
    report: Report
    z: npt.NDArray[np.float32]
    """`[n]`, the prompt that the round began with and measured on dev examples."""
    exchanges: tuple[tuple[Task, Update], ...]
    """Each task with the encoded update that answered it."""
    finalists: tuple[Result, ...]
    """The best prompts after the round, best first."""


class Simulation:
    """A run that advances by one round whenever the next is asked for.

    No time passes, so no deadline expires: every client that is asked answers.
    """

    def __init__(self, splits: Splits, ptm: Ptm) -> None:
        """Lets every client join, and registers its examples with `ptm`.

        Raises:
            InvalidJob: The model's owner is to train, and `splits.server` has no examples.
            FedbbptError: A client cannot take part, for the reasons that `assemble.client` gives.
        """
        job = splits.job
        assemble.check_owner_has_data(job, splits.server)
        methods = [job.definition()]
        with TemporaryDirectory() as folder:
            path, auxiliary = Path(folder, AUXILIARY), None
            if job.definition().white_box:
                assemble.make_auxiliary(job, splits.server, path)
                auxiliary = assemble.announced_auxiliary(path)
            settings = run_settings(job, "simulation", auxiliary=auxiliary)
            self._coordinator = assemble.coordinator(job, settings, MemoryStore())
            self._agents: dict[str, Agent] = {}
            for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
                agent = assemble.client(
                    settings, train, dev, ptm, fetch_auxiliary=lambda announced: path, methods=methods
                )
                self._join(assemble.client_name(index), len(train), agent)
        if job.definition().owner_takes_part(job.method):
            owner = assemble.owner(settings, splits.server, job.ptm.model, methods=methods)
            self._join(OWNER, len(splits.server), owner)

    def _join(self, name: str, examples: int, agent: Agent) -> None:
        session, _ = self._coordinator.join(assemble.hello(name, "simulated", examples), now=0.0)
        self._agents[session] = agent

    def rounds(self) -> Iterator[SimulatedRound]:
        """Yields each round as it closes, until the run has ended."""
        exchanges: list[tuple[Task, Update]] = []
        shown = 0
        while not self._coordinator.state.ended:
            for session, agent in self._agents.items():
                task = self._coordinator.task_for(session)
                if task is not None:
                    update = agent.answer(task)
                    exchanges.append((task, update))
                    self._coordinator.submit(session, task.id, update, now=0.0)
                if reports := self._coordinator.reports(shown):
                    shown += 1
                    z = agent.prompt(exchanges[-1][0])
                    finalists = self._coordinator.finalists
                    yield SimulatedRound(self._coordinator.status(), reports[0], z, tuple(exchanges), finalists)
                    exchanges = []

    def result(self) -> Result:
        """Returns the best prompt so far. Raises NoResultYet before the first round has closed."""
        return self._coordinator.result()


def simulate(
    splits: Splits, ptm: Ptm, watch: Callable[[RunStatus], None] = lambda status: None
) -> tuple[Result, tuple[Report, ...]]:
    """Simulates a run to its end; `watch` receives the status after each round.

    Returns:
        The best prompt, and the report of each round.
    """
    simulation = Simulation(splits, ptm)
    reports: list[Report] = []
    for closed in simulation.rounds():
        watch(closed.status)
        reports.append(closed.report)
    return simulation.result(), tuple(reports)
