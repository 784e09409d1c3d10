"""Refuses combinations of `[privacy]` with other settings for which no guarantee would hold."""

import json
from typing import TYPE_CHECKING

from fedbbpt.codecs import SPARSE
from fedbbpt.errors import InvalidJob
from fedbbpt.job.privacy_section import PrivacySection
from fedbbpt.methods.method import AnyMethod
from fedbbpt.secure.fixed_point import MOST_CLIENTS
from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.toml.section import contradiction

if TYPE_CHECKING:
    from fedbbpt.job.config import Job


def check_privacy(job: "Job", method: AnyMethod) -> None:
    """Raises the error of a job's validator if the run could not keep what `[privacy]` promises.

    Args:
        job: The job.
        method: Its method.
    """
    if job.privacy.aggregation == "secure":
        _check_secure(job, method)
    if job.privacy.epsilon:
        _check_noise(job, method)
    else:
        _check_unused(job.privacy)


def _check_secure(job: "Job", method: AnyMethod) -> None:
    """Raises the error of a job whose rounds secure aggregation cannot sum."""
    key, cohort, codec = "privacy.aggregation", job.cohort, job.codec
    if not _linear(job, method):
        why = _NEEDS.get(method.name, "its server needs each client's update, and not only their sum")
        fix = '"plain", or method.name = "fed-cma" or "fed-readout"'
        raise contradiction(key, f"{method.name} cannot use secure aggregation: {why}", fix)
    if cohort.mode == "async":
        what = "all clients of a sum answer the same round, and asynchronous rounds mix several"
        raise contradiction("cohort.mode", what, '"sync", or privacy.aggregation = "plain"')
    for name in ("uplink", "downlink"):
        if getattr(codec, name) in SPARSE:
            what = "sums need the same numbers from all clients, and a sparse codec sends each client's largest"
            raise contradiction(f"codec.{name}", what, '"auto", or privacy.aggregation = "plain"')
    if codec.uplink not in ("auto", "float32"):
        what = f"{json.dumps(codec.uplink)} has no effect: masked updates are numbers of fixed point of 64 bits"
        raise contradiction("codec.uplink", what, '"auto", or privacy.aggregation = "plain"')
    least, most = min(cohort.clients, cohort.size or cohort.clients), cohort.clients
    if least < LEAST_CLIENTS:
        where = "cohort.size" if cohort.size and cohort.size < LEAST_CLIENTS else "cohort.clients"
        what = f"a sum of {least} client(s) tells what one of them sent"
        raise contradiction(where, what, f'at least {LEAST_CLIENTS}, or privacy.aggregation = "plain"')
    if most > MOST_CLIENTS:
        what = f"{most} times the largest number of one client exceeds the 63 bits of a sum"
        raise contradiction("cohort.clients", what, f'at most {MOST_CLIENTS}, or privacy.aggregation = "plain"')
    if cohort.over_sample > 1:
        what = "clients whose answers a round does not need would count as dropped, which takes two more steps a round"
        raise contradiction("cohort.over_sample", what, '1, or privacy.aggregation = "plain"')


_NEEDS = {
    "fed-bpt": "its server needs each client's mean and losses, to weigh them one by one",
    "fed-bbpt": "with these settings its server needs each client's scores, and not only their sum",
    "fed-sp": "the model's owner takes turns of its own, whose update is no sum",
}


def _linear(job: "Job", method: AnyMethod) -> bool:
    """Returns whether the method's server needs no more than a sum, or whether that depends on data, here unread."""
    try:
        space = job.task.prompt.space(job.run.seed, len(job.task.labels) or 2)
    except InvalidJob:
        return True
    return method.sums(method.settings(job.method), space) is not None


def _check_unused(privacy: PrivacySection) -> None:
    for key in ("delta", "clip_norm", "level"):
        value = getattr(privacy, key)
        if value != type(privacy).model_fields[key].default:
            what = f"{json.dumps(value)} has no effect without noise"
            raise contradiction(f"privacy.{key}", what, "privacy.epsilon above 0 as well, or no such key")


def _check_noise(job: "Job", method: AnyMethod) -> None:
    if method.essential is None:
        what = f"it is not known by how much one client, or one example, can change a step of {method.name}"
        raise contradiction("privacy.epsilon", what, '0, or method.name = "fed-cma" or "fed-readout"')
    if job.cohort.mode == "async":
        what = "a client may add to several sums of an asynchronous round, and only one is accounted for"
        raise contradiction("privacy.epsilon", what, 'cohort.mode = "sync", or 0')
    if job.cohort.robust != "none":
        what = "a defence weighs each update by the others, so that one client can change more than its own part"
        raise contradiction("cohort.robust", what, '"none", or privacy.epsilon = 0')
    if job.privacy.level == "example":
        _check_example_level(job)
    if not job.task.views:
        return
    if len(job.method.readout.ridges) != 1:
        what = "the dev examples would choose between several ridges, and each would need noise of its own"
        raise contradiction("method.readout.ridges", what, "a single one, such as [0.01]")
    if getattr(job.method, "refit", False):
        what = "a readout that is fitted to the dev examples as well would reveal them"
        raise contradiction("method.refit", what, "false")


def _check_example_level(job: "Job") -> None:
    if job.method.batch_examples:
        what = "an example of a batch stands for several in the sum, so that clipping it does not bound what it adds"
        raise contradiction("method.batch_examples", what, '0, or privacy.level = "client"')
    if job.codec.uplink not in ("auto", "float32"):
        what = f"rounding to {job.codec.uplink} after clipping lets one example change a sum by more than the clip norm"
        raise contradiction("codec.uplink", what, '"float32", or privacy.level = "client"')
