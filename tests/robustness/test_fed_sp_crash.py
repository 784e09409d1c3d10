"""Processes that train models die after every single answer: the run ends as if none had."""

from collections.abc import Callable
from pathlib import Path

from fedbbpt.client.agent import Agent
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.client.unmeasured import Unmeasured
from fedbbpt.codecs import CODECS
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.federation.white_boxes import client_box, owner_box, write_auxiliary
from fedbbpt.interfaces import RunSettings
from fedbbpt.job.settings import client_name, make_coordinator, run_settings
from fedbbpt.methods import client_half, owner_half
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import OWNER, Hello
from tests.federation import Course, job, job_of_prefixes


def test_an_answer_at_a_time(data: Path, tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    """Kills: a client's weights that live in the process alone, an optimizer that outlives its stage, and an answer
    that is computed anew, from weights that have moved on, though it was kept."""
    splits = prepare(job_of_prefixes(job(data, rounds=2, clients=2), checkpoint("llama")))
    ptm = Engine(load(splits.job.ptm.model, threads=1), lambda: 0.0)
    auxiliary = tmp_path / "auxiliary.safetensors"
    write_auxiliary(splits.job, splits.server, auxiliary)

    def born(name: str, settings: RunSettings) -> Agent:
        keepsake = Keepsake(tmp_path / name)
        if name == OWNER:
            half = owner_half(settings, owner_box(settings, splits.server, splits.job.ptm.model))
            return Agent(half, Unmeasured(len(splits.server)), CODECS[settings.codec], keepsake)
        index = names.index(name)
        objectives = LocalObjectives(ptm, settings.task, settings.space, splits.train[index], splits.dev[index])
        half = client_half(settings, client_box(settings, splits.train[index], auxiliary))
        return Agent(half, objectives, CODECS[settings.codec], keepsake)

    names = [client_name(0), client_name(1), OWNER]
    coordinator = make_coordinator(splits.job, run_settings(splits.job, "simulation"), MemoryStore())
    sessions = {name: coordinator.join(Hello(name, "key", 5, frozenset(CODECS)), 0.0) for name in names}
    answers = 0
    while not coordinator.state.ended:
        for name, (session, settings) in sessions.items():
            task = coordinator.task_for(session)
            if task is not None:
                born(name, settings).answer(task)  # and dies before it could submit
                coordinator.submit(session, task.id, born(name, settings).answer(task), 0.0)
                answers += 1
    assert answers == 2 * (2 + 1) + 2
    assert Course.of(coordinator.result(), coordinator.reports(0)) == Course.of(
        *simulate(splits, ptm, lambda status: None)
    )
