"""A federation in one process: the same coordinator, agents, methods, codecs and model, but no gRPC and no clock.

The simulation is not a second engine: it calls as functions what the services call over the network. With the same
seed it ends with the same prompt, bit for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput
from fedbbpt.federation import assemble
from fedbbpt.federation.crew import Crew, CrewPlan, LocalCrew
from fedbbpt.federation.private_files import PrivateFiles
from fedbbpt.federation.run_folder import AUXILIARY, STORE
from fedbbpt.federation.splits import Splits
from fedbbpt.federation.virtual_time import Pace, VirtualTime, drawn_pace
from fedbbpt.interfaces import Ptm, Store
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.methods.replay import Told
from fedbbpt.server.hosted_run import Submission
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.round_store import RoundStore
from fedbbpt.types import Report, Result, RunEvent, RunState, RunStatus, Snapshot, Task, Update

RUN_ID = "simulation"
CLIENT_KEY = "simulated"


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
    told: Told | None = None
    """What clients that replay are told of the round, in place of the broadcast; None if the run's clients do not."""


class Simulation:
    """A run that advances by one round whenever the next is asked for.

    No time passes, so no deadline expires: every client that is asked answers. If more are asked than a round needs,
    their order is drawn by the run's seed. With a `pace`, clients take virtual time, and deadlines expire in it.
    """

    def __init__(
        self,
        splits: Splits,
        ptm: Ptm,
        folder: Path | None = None,
        crew: Callable[[CrewPlan, Ptm], Crew] = LocalCrew,
        pace: Pace | None = None,
    ) -> None:
        """Lets every client join, and registers its examples with `ptm`.

        Args:
            splits: The job and its data.
            ptm: The model to query.
            folder: Where each round is stored as it closes. A simulation that is interrupted, even in the middle of a
                round, continues from there, and ends with the same bits. None stores nothing.
            crew: Makes the clients.
            pace: How long clients take for a task, in virtual seconds. None: `drawn_pace` in an asynchronous run, and
                no time in others.

        Raises:
            InvalidInput: The folder holds an unfinished run in virtual time, which cannot continue.
            InvalidJob: The model's owner is to train, and `splits.server` has no examples.
            StoreError: The folder holds another job's run, or cannot be written.
            FedbbptError: A client cannot take part, for the reasons that `assemble.client` gives.
        """
        job = splits.job
        assemble.check_owner_has_data(job, splits.server)
        if pace is None and job.cohort.mode == "async":
            pace = drawn_pace(job.run.seed)
        with ExitStack() as resources, ExitStack() as temporary:
            path, announced = None, None
            if job.definition().white_box:
                path = Path(folder or temporary.enter_context(TemporaryDirectory()), AUXILIARY)
                if not path.exists():
                    assemble.make_auxiliary(job, splits.server, path)
                announced = assemble.announced_auxiliary(path)
            self._seed = job.run.seed
            settings = run_settings(job, RUN_ID, auxiliary=announced)
            assemble.check_noise(job)
            self._private = PrivateFiles(folder) if folder else None
            store = RoundStore(_durable(job, ptm, folder), self._keep_private) if folder else MemoryStore()
            resources.callback(store.close)
            self._coordinator = assemble.coordinator(job, settings, store)
            if pace is not None and self._coordinator.state is RunState.RUNNING:
                what = "an unfinished simulation of asynchronous rounds, whose clients were at work on earlier tasks"
                raise InvalidInput(what, where=str(folder), fix="another folder, to begin anew")
            kept = self._private.load(len(self.reports_since(0))) if self._private else {}
            plan = CrewPlan(splits, self._coordinator.settings, path, kept)
            self._crew = crew(plan, ptm)
            resources.callback(self._crew.close)
            self._sessions = {name: self._join(name, examples) for name, examples in plan.examples.items()}
            self._pace = pace
            self._resources = resources.pop_all()

    def _join(self, name: str, examples: int) -> str:
        hello = assemble.hello(name, CLIENT_KEY, examples)
        return "" if self._coordinator.state.ended else self._coordinator.join(hello, now=0.0)[0]

    def _keep_private(self, snapshot: Snapshot) -> None:
        if self._private is not None and snapshot.round:
            self._private.save(snapshot.round, self._crew.private())

    def rounds(self) -> Iterator[SimulatedRound]:
        """Yields each further round as it closes, until the run has ended."""
        coordinator, shown = self._coordinator, len(self.reports_since(0))
        exchanges: list[tuple[Task, Update]] = []
        if self._pace is None or coordinator.state.ended:
            steps = self._steps()
        else:
            steps = VirtualTime(coordinator, self._crew, self._sessions, self._pace).steps()
        while not coordinator.state.ended:
            z, told = coordinator.prompt, coordinator.told
            exchanges += next(steps)
            if reports := coordinator.reports(shown):
                shown += 1
                finalists = coordinator.finalists
                yield SimulatedRound(coordinator.status(), reports[0], z, tuple(exchanges), finalists, told)
                exchanges = []

    def _steps(self) -> Iterator[list[tuple[Task, Update]]]:
        """Yields all answers of one round at a time, which take no time."""
        coordinator = self._coordinator
        while not coordinator.state.ended:
            found = [(session, coordinator.task_for(session)) for session in self._sessions.values()]
            asked = [(session, task) for session, task in found if task is not None]
            if coordinator.enough is not None:
                asked = sorted(asked, key=lambda each: self._arrival(each[1]))[: coordinator.enough]
            assert asked, "an open round has clients that it asks"
            waiting, exchanges = iter(asked), list[tuple[Task, Update]]()
            for updates in self._crew.answers([task for _, task in asked]):
                answered = [(session, task, update) for update, (session, task) in zip(updates, waiting, strict=False)]
                exchanges += [(task, update) for _, task, update in answered]
                submissions = [Submission(session, task.id, update) for session, task, update in answered]
                for answer in coordinator.submit_all(submissions, now=0.0):
                    if isinstance(answer, Exception):
                        raise answer
            yield exchanges

    def _arrival(self, task: Task) -> int:
        """The place of an answer in the order in which a round's answers arrive."""
        return seeds.derive(self._seed, "arrival", task.id.round, task.id.client_id)

    def events_since(self, number: int) -> tuple[RunEvent, ...]:
        """Returns what happened after the event of this number."""
        return self._coordinator.events.since(number)

    def reports_since(self, round: int) -> tuple[Report, ...]:
        """Returns the reports of the closed rounds from a round on, with those before an interruption."""
        return self._coordinator.reports(round)

    def result(self) -> Result:
        """Returns the best prompt so far. Raises NoResultYet before the first round has closed."""
        return self._coordinator.result()

    def close(self) -> None:
        """Closes the store, and ends the clients."""
        self._resources.close()


def _durable(job: Job, ptm: Ptm, folder: Path) -> Store:
    # SQLAlchemy would slow the start of every other command.
    from fedbbpt.server.stores.rows import RunRecord
    from fedbbpt.server.stores.sqlite import SqliteStore

    digest, created = job.digest(ptm.describe().revision), datetime.now(UTC).isoformat()
    return SqliteStore(folder / STORE, RunRecord(RUN_ID, job.run.seed, digest, created))


def simulate(
    splits: Splits,
    ptm: Ptm,
    watch: Callable[[RunStatus], None] = lambda status: None,
    folder: Path | None = None,
    crew: Callable[[CrewPlan, Ptm], Crew] = LocalCrew,
    pace: Pace | None = None,
) -> tuple[Result, tuple[Report, ...]]:
    """Simulates a run to its end; `watch` receives the status after each round.

    `folder`, `crew` and `pace` are those of `Simulation`.

    Returns:
        The best prompt, and the report of each round.
    """
    simulation = Simulation(splits, ptm, folder, crew, pace)
    try:
        for closed in simulation.rounds():
            watch(closed.status)
        return simulation.result(), simulation.reports_since(0)
    finally:
        simulation.close()
