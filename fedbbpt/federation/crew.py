"""The clients of a simulation: they answer tasks by function calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from fedbbpt.client.agent import Agent
from fedbbpt.federation import assemble
from fedbbpt.federation.lockstep import advance_together, lockstep
from fedbbpt.federation.splits import Splits
from fedbbpt.host.progress import progress
from fedbbpt.interfaces import Ptm, WhiteBox
from fedbbpt.types import OWNER, Arrays, RunSettings, Task, Update

TASKS_AT_A_TIME = 256
"""Tasks that are answered before the first of their updates are passed on."""


class Crew(Protocol):
    """The clients of a simulation, and the model's owner if it takes part.

    Law: an update depends only on its task, the client's examples and the client's private arrays. So all crews of the
    same splits give the same updates, bit for bit, in whatever order they compute them.
    """

    def answers(self, tasks: Sequence[Task]) -> Iterator[Sequence[Update]]:
        """Yields the encoded updates in the order of the tasks, a part at a time."""
        ...

    def private(self) -> Mapping[str, Arrays]:
        """Returns the private arrays that clients keep for their next task, by client id, without empty ones."""
        ...

    def close(self) -> None:
        """Releases what the crew holds."""
        ...


@dataclass(frozen=True, slots=True)
class CrewPlan:
    """Everything that a crew is made of, except its model."""

    splits: Splits
    settings: RunSettings
    auxiliary: Path | None
    """The auxiliary model of a white-box method."""
    private: Mapping[str, Arrays]
    """The private arrays of an interrupted run, by client id."""
    white_box: Callable[[int], WhiteBox] | None = None
    """Makes what a member with so many examples trains, in place of the models of a white-box method; None: these."""

    @property
    def examples(self) -> dict[str, int]:
        """The number of training examples of each member, by client id, in the order in which they join."""
        found = {assemble.client_name(index): len(train) for index, train in enumerate(self.splits.train)}
        job = self.splits.job
        return found | ({OWNER: len(self.splits.server)} if job.definition().owner_takes_part(job.method) else {})

    def agents(self, ptm: Ptm, first: int = 0, step: int = 1) -> dict[str, Agent]:
        """Returns every `step`-th member's agent by client id, beginning with member number `first`.

        Raises:
            FedbbptError: A client cannot take part, for the reasons that `assemble.client` gives.
        """
        members = list(islice(enumerate(self.examples), first, None, step))
        agents: dict[str, Agent] = {}
        with progress("registering the examples", len(members), "clients") as advance:
            for index, name in members:
                agents[name] = self._agent(index, name, ptm)
                advance(1)
        return agents

    def _agent(self, index: int, name: str, ptm: Ptm) -> Agent:
        splits, methods, private = self.splits, [self.splits.job.definition()], self.private.get(name, {})
        white_box = None if self.white_box is None else self.white_box(self.examples[name])
        if name == OWNER:
            model = splits.job.ptm.model
            return assemble.owner(
                self.settings, splits.server, model, methods=methods, private=private, white_box=white_box
            )
        return assemble.client(
            self.settings,
            splits.train[index],
            splits.dev[index],
            ptm,
            fetch_auxiliary=None if self.auxiliary is None else self._fetched,
            methods=methods,
            private=private,
            white_box=white_box,
        )

    def _fetched(self, announced: object) -> Path:
        assert self.auxiliary is not None, "only white-box methods fetch a model"
        return self.auxiliary


class CrewPart:
    """Some or all of the clients, in one process."""

    def __init__(self, plan: CrewPlan, ptm: Ptm, first: int = 0, step: int = 1) -> None:
        """Registers the examples with `ptm` of the members that `CrewPlan.agents` chooses. Raises what it raises."""
        self._ptm = lockstep(ptm)
        self._agents = plan.agents(self._ptm, first, step)

    def answer(self, tasks: Sequence[Task]) -> list[Update]:
        """Returns the updates of tasks of this part's clients, in order."""
        return advance_together(self._ptm, [partial(self._agents[task.id.client_id].answer, task) for task in tasks])

    def private(self) -> Mapping[str, Arrays]:
        """Returns the private arrays of this part's clients, without empty ones."""
        return {name: agent.private for name, agent in self._agents.items() if agent.private}


class LocalCrew(CrewPart):
    """A crew in this process."""

    def answers(self, tasks: Sequence[Task]) -> Iterator[Sequence[Update]]:
        """Yields the updates in order, computed when they are asked for."""
        for start in range(0, len(tasks), TASKS_AT_A_TIME):
            yield self.answer(tasks[start : start + TASKS_AT_A_TIME])

    def close(self) -> None:
        """Does nothing: there is no resource to release."""
