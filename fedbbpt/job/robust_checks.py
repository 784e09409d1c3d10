"""Refuses combinations of `cohort.robust` with other settings in which a defence could not judge the clients."""

import json
from typing import TYPE_CHECKING

from fedbbpt.methods.method import AnyMethod
from fedbbpt.toml.section import contradiction

if TYPE_CHECKING:
    from fedbbpt.job.config import Job


def check_robust(job: "Job", method: AnyMethod) -> None:
    """Raises the error of a job's validator if its rule cannot combine the updates of its method."""
    rule = job.cohort.robust
    if rule == "none":
        return
    key, named = "cohort.robust", json.dumps(rule)
    if job.privacy.aggregation == "secure":
        what = f"{named} compares the clients' updates, and secure aggregation shows their sum only"
        raise contradiction(key, what, '"none", or privacy.aggregation = "plain"')
    if job.privacy.epsilon:
        what = f"the noise is for a sum of clipped updates, and {named} combines them in another way"
        raise contradiction(key, what, '"none", or privacy.epsilon = 0')
    why = method.undefended(job.method, rule)
    if not why and job.task.views:
        why = "a readout is fitted to the sums over all clients, which must be exact"
    if why:
        what = f"{named} cannot combine updates of {method.name} here: {why}"
        raise contradiction(key, what, '"none", or method.name = "fed-cma" without a readout')
