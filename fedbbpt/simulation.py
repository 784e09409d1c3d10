"""A federation in one process: the same coordinator, agents, methods, codecs and model, but no gRPC and no clock.

Not a second engine: it calls by function what the services call by wire, so that for the same seed it ends with the
same prompt, bit for bit.
"""

from collections.abc import Callable

from fedbbpt.client.agent import Agent
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.codecs import CODECS
from fedbbpt.interfaces import Hello, Ptm, Report
from fedbbpt.methods import client_half
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.run_status import Result, RunStatus
from fedbbpt.setup import client_name, make_coordinator, run_settings
from fedbbpt.splits import Splits


def simulate(splits: Splits, ptm: Ptm, watch: Callable[[RunStatus], None]) -> tuple[Result, tuple[Report, ...]]:
    """The result, and what each round measured; `watch` sees the status after each.

    No time passes, so no deadline does: whoever is asked answers.
    """
    job = splits.job
    coordinator = make_coordinator(job, run_settings(job, "simulation"), MemoryStore())
    agents: dict[str, Agent] = {}
    for index, (train, dev) in enumerate(zip(splits.train, splits.dev, strict=True)):
        hello = Hello(client_name(index), "simulated", len(train), frozenset(CODECS))
        session, settings = coordinator.join(hello, now=0.0)
        objectives = LocalObjectives(ptm, settings.task, settings.space, train, dev)
        agents[session] = Agent(client_half(settings, objectives), objectives, CODECS[settings.codec])
    shown = 0
    while not coordinator.state.ended:
        for session, agent in agents.items():
            task = coordinator.task_for(session)
            if task is not None:
                coordinator.submit(session, task.id, agent.answer(task), now=0.0)
            if coordinator.reports(shown):
                shown += 1
                watch(coordinator.status())
    return coordinator.result(), coordinator.reports(0)
