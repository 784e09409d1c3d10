"""From a job to what its roles are built with: one reading of it, for real processes and for simulation."""

import math

from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidJob
from fedbbpt.interfaces import RunSettings, Store
from fedbbpt.job.config import Job
from fedbbpt.server.cohort import CohortSettings
from fedbbpt.server.coordinator import Coordinator, Traffic
from fedbbpt.types import Auxiliary, TaskSpec

MAX_UPDATE_BYTES = 64 * 1024 * 1024


def task_spec(job: Job) -> TaskSpec:
    """Raises InvalidJob where the job leaves its classes to data that is not here."""
    task = job.task
    if len(task.labels) < 2:
        raise InvalidJob(
            f"task.labels names {len(task.labels)} classes", where="job", fix="at least two labels, or a preset"
        )
    if task.mapping != "given":
        what = f"task.mapping = {task.mapping!r} needs data and the model, which are not here"
        raise InvalidJob(what, where="job", fix="task.classes, as `fedbbpt run` or `simulate` found them")
    return TaskSpec(task.template or "{prompt} {text}", task.classes or task.labels)


def run_settings(
    job: Job, run_id: str, ptm_address: str = "", ptm_revision: str = "", auxiliary: Auxiliary | None = None
) -> RunSettings:
    """What clients learn when they join."""
    return RunSettings(
        run_id=run_id,
        task=task_spec(job),
        labels=job.task.labels,
        space=job.space(),
        method=job.entry().settings(job.method),
        codec=job.codec.uplink,
        rounds=job.run.rounds,
        ptm_address=ptm_address,
        ptm_revision=ptm_revision or job.ptm.revision,
        max_update_bytes=MAX_UPDATE_BYTES,
        auxiliary=auxiliary,
    )


def cohort_settings(job: Job) -> CohortSettings:
    cohort = job.cohort
    quorum = math.ceil(cohort.quorum * (cohort.size or cohort.clients))
    owner = job.entry().owner_takes_part(job.method)
    return CohortSettings(cohort.clients, quorum, cohort.deadline_seconds, cohort.size or None, owner=owner)


def make_coordinator(job: Job, settings: RunSettings, store: Store, traffic: Traffic = lambda: None) -> Coordinator:
    """Begins the job's run, or goes on with the one in the store. Raises StoreError."""
    return Coordinator(
        method_name=job.method.name,
        method=job.entry().server(job.method, job.space()),
        codec=CODECS[job.codec.uplink],
        settings=settings,
        seed=job.run.seed,
        cohort=cohort_settings(job),
        store=store,
        traffic=traffic,
    )


def client_name(index: int) -> str:
    """Of a client that the framework itself starts; sorts as the index does."""
    return f"client-{index:04d}"
