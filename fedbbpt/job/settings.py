"""The settings that a run's clients are told when they join, derived from the job."""

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import Job
from fedbbpt.limits import MAX_CLASSES, MAX_UPDATE_BYTES
from fedbbpt.methods import WHOLE, downlink_codec, told_settings, uplink_codec
from fedbbpt.types import Auxiliary, RunSettings, Sampling, TaskSpec

DEFAULT_TEMPLATE = "{prompt} {text}"


def task_spec(job: Job) -> TaskSpec:
    """Returns the template and the texts that the PTM scores: those of the classes, and the further columns.

    Raises:
        InvalidJob: The job leaves its classes to the data, or texts to the model, and nothing has completed them. Or a
            column is a class text as well, or there are too many of both.
    """
    task = job.task
    if len(task.labels) < 2:
        raise InvalidJob(
            f"task.labels names {len(task.labels)} classes", where="job", fix="at least two labels, or a preset"
        )
    if task.mapping != "given":
        what = f"task.mapping = {task.mapping!r} needs the data and the model, which this command does not read"
        raise InvalidJob(what, where="job", fix="task.classes, as `fedbbpt run` or `simulate` found them")
    classes, columns = task.classes or task.labels, job.columns()
    if twice := [text for text in columns if text in classes]:
        what = f"task.columns: {twice[0]!r} is the text of a class, too"
        raise InvalidJob(what, where="job", fix="each text once")
    if columns and len(classes) + len(columns) > MAX_CLASSES:
        what = f"task.columns: {len(columns)} texts besides those of {len(classes)} classes"
        raise InvalidJob(what, where="job", fix=f"at most {MAX_CLASSES} in all")
    return TaskSpec(task.template or DEFAULT_TEMPLATE, classes + columns)


def run_settings(
    job: Job, run_id: str, ptm_address: str = "", ptm_revision: str = "", auxiliary: Auxiliary | None = None
) -> RunSettings:
    """Returns the settings that the run's clients are told when they join.

    Args:
        job: The job, with its task complete.
        run_id: Identifies the run; no other run of the same job has it.
        ptm_address: The addresses of the PTM service; empty if each client knows its own.
        ptm_revision: The only revision of the PTM that clients may use; empty for the one that the job names.
        auxiliary: The model that clients of a white-box method fetch and train.

    Raises:
        InvalidJob: The job's task is not complete.
    """
    secure = job.privacy.aggregation == "secure"
    clips = bool(job.privacy.epsilon) and job.privacy.level == "example"
    # Coarser codecs round by more than the noise allows for.
    uplink = "float32" if clips else job.codec.uplink
    return RunSettings(
        run_id=run_id,
        task=task_spec(job),
        labels=job.task.labels,
        space=job.space(),
        method=told_settings(job.definition(), job.method),
        codec=WHOLE if secure else uplink_codec(job.definition(), job.method, job.space(), uplink),
        downlink=downlink_codec(job.definition(), job.method, job.space(), job.codec.downlink),
        kept=job.codec.kept,
        rounds=job.run.rounds,
        ptm_address=ptm_address,
        ptm_revision=ptm_revision or job.ptm.revision,
        max_update_bytes=MAX_UPDATE_BYTES,
        auxiliary=auxiliary,
        sampling=Sampling(job.method.batch_examples, job.method.dev_every, seeds.derive(job.run.seed, "batches")),
        secure_threshold=job.privacy.threshold if secure else None,
        clip_norm=job.privacy.clip_norm if clips else 0.0,
    )
