"""The settings that `fedbbpt init` writes where they differ from the defaults of a job's keys."""

from collections.abc import Mapping
from typing import Any

from fedbbpt.job.config import Job
from fedbbpt.methods import METHODS, find_method

READOUT: Mapping[str, Any] = {"task": {"columns": "general"}, "run": {"rounds": 100}}
"""For methods that ask the model for scores: a readout over general columns, and enough rounds for a search after the
two fits that come first."""
OF_METHODS: Mapping[str, Mapping[str, Any]] = {
    "fed-readout": {"task": {"columns": "general", "views": "general"}, "run": {"rounds": 40}}
}
"""What a method needs in place of that. Without a search, sixteen views cost little and gain most (docs/results.md)."""
DEFAULT_METHOD = "fed-readout"
"""The method that gains most for its queries (docs/results.md)."""


def recommended(method: str) -> Job:
    """Returns the job that `fedbbpt init` writes for an installed method.

    A plug-in's job has the defaults only: whether its search goes with a readout is for its author to say.
    """
    tables: dict[str, Any] = {"method": {"name": method}}
    definition = find_method(method)
    if method in METHODS and definition is not None and not definition.white_box:
        tables = {**READOUT, **OF_METHODS.get(method, {}), **tables}
    return Job.model_validate(tables)
