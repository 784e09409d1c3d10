"""Refuses combinations of `[privacy]` with other settings for which no guarantee would hold."""

import json
from typing import TYPE_CHECKING

from fedbbpt.job.privacy_section import PrivacySection
from fedbbpt.methods.method import AnyMethod
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
        what = "this version has no secure aggregation"
        raise contradiction("privacy.aggregation", what, '"plain"')
    if job.privacy.epsilon:
        _check_noise(job, method)
    else:
        _check_unused(job.privacy)


def _check_unused(privacy: PrivacySection) -> None:
    for key in ("delta", "clip_norm", "level"):
        value = getattr(privacy, key)
        if value != type(privacy).model_fields[key].default:
            what = f"{json.dumps(value)} has no effect without noise"
            raise contradiction(f"privacy.{key}", what, "privacy.epsilon above 0 as well, or no such key")


def _check_noise(job: "Job", method: AnyMethod) -> None:
    raise contradiction("privacy.epsilon", "this version adds no noise", "0")
