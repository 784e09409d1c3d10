"""From a job, or from what a client learns when it joins, to the models that a white-box method trains.

Torch is loaded where such a model is needed, and nowhere before: coordinators and other methods' clients do without.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.interfaces import RunSettings, WhiteBox
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.methods.fed_sp import FedSpConfig
from fedbbpt.types import Auxiliary, LabelledExamples

AUXILIARY = "auxiliary.safetensors"


def write_auxiliary(job: Job, shard: LabelledExamples, path: Path) -> None:
    """Makes the auxiliary model of the job's model, whole or not at all. Raises InvalidJob, InvalidInput."""
    if not isinstance(job.method, FedSpConfig):
        raise InvalidJob(f"{job.method.name} has no auxiliary model", where="method.name", fix='"fed-sp"')
    with _torch():
        from fedbbpt.whitebox.auxiliary import LayerRange
        from fedbbpt.whitebox.roles import make_auxiliary
    layers = LayerRange(job.method.start, job.method.cell, job.method.mode)
    made = make_auxiliary(job.ptm.model, layers, job.method.distillation(), task_spec(job), shard, job.run.seed)
    partial = path.with_suffix(".partial")
    partial.write_bytes(made)
    partial.replace(path)


def announced(path: Path) -> Auxiliary:
    """Raises InvalidInput."""
    try:
        with path.open("rb") as file:
            return Auxiliary(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        fix = "the file that `fedbbpt owner auxiliary` wrote"
        raise InvalidInput(error.strerror or str(error), where=str(path), fix=fix) from None


def check_shard(job: Job, shard: LabelledExamples) -> None:
    """Raises InvalidJob where the model's owner is to train and has nothing to train on."""
    if job.entry().owner_takes_part(job.method) and not len(shard):
        fix = "a share above 0, or method.server_shard = false"
        raise InvalidJob("data.server_share = 0, and method.server_shard is on", where="job", fix=fix)


def client_box(settings: RunSettings, train: LabelledExamples, path: Path) -> WhiteBox:
    """The auxiliary model in the file `path`, on these examples. Raises InvalidInput, InvalidTask."""
    with _torch():
        from fedbbpt.whitebox import roles
    return roles.client_white_box(path, settings.space, settings.task, train)


def owner_box(settings: RunSettings, shard: LabelledExamples, model: str) -> WhiteBox:
    """The full model, on the owner's examples. Raises InvalidInput, InvalidTask."""
    with _torch():
        from fedbbpt.whitebox import roles
    return roles.owner_white_box(model, settings.space, settings.task, shard)


@contextmanager
def _torch() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        what = f"{error.name} is not installed"
        raise InvalidInput(what, where="method fed-sp", fix="pip install 'fedbbpt[ptm]'") from None
