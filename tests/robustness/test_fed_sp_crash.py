"""Processes that train models die after every answer, and the run ends as if they had not."""

from collections.abc import Callable
from pathlib import Path

from fedbbpt.client.agent import Agent
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.federation import assemble
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.settings import run_settings
from fedbbpt.ptm.models.loading import load
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import OWNER, RunSettings
from tests.tenants import local_ptm
from tests.tiny_run import Course, job, job_of_prefixes


def test_processes_that_die_after_each_answer_end_with_the_same_run(
    data: Path, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    """Kills: a client's weights that are only in memory, an optimizer that outlives its stage, and a saved answer that
    is computed again, from weights that have changed since."""
    splits = prepare(job_of_prefixes(job(data, rounds=2, clients=2), checkpoint("llama")))
    ptm = local_ptm(load(splits.job.ptm.model, threads=1))
    auxiliary = tmp_path / "auxiliary.safetensors"
    assemble.make_auxiliary(splits.job, splits.server, auxiliary)

    def start(name: str, settings: RunSettings) -> Agent:
        keepsake = Keepsake(tmp_path / name)
        if name == OWNER:
            return assemble.owner(settings, splits.server, splits.job.ptm.model, keepsake=keepsake)
        train, dev = splits.train[names.index(name)], splits.dev[names.index(name)]
        return assemble.client(
            settings, train, dev, ptm, keepsake=keepsake, fetch_auxiliary=lambda announced: auxiliary
        )

    names = [assemble.client_name(0), assemble.client_name(1), OWNER]
    settings = run_settings(splits.job, "simulation", auxiliary=assemble.announced_auxiliary(auxiliary))
    coordinator = assemble.coordinator(splits.job, settings, MemoryStore())
    counts = map(len, (*splits.train[:2], splits.server))
    sessions = {
        name: coordinator.join(assemble.hello(name, "key", count), 0.0)
        for name, count in zip(names, counts, strict=True)
    }
    answers = 0
    while not coordinator.state.ended:
        for name, (session, settings) in sessions.items():
            task = coordinator.task_for(session)
            if task is not None:
                start(name, settings).answer(task)  # the process dies before it submits
                coordinator.submit(session, task.id, start(name, settings).answer(task), 0.0)
                answers += 1
    assert answers == 2 * (2 + 1) + 2
    assert Course.of(coordinator.result(), coordinator.reports(0)) == Course.of(
        *simulate(splits, ptm, lambda status: None)
    )
