"""Reads jobs: from a file, from TOML text, or from a dictionary."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fedbbpt.job.config import Job, job_of, read_job
from fedbbpt.job.config import parse_job as parse_job
from fedbbpt.methods.method import AnyMethod


def load_job(path: str | PathLike[str], *, methods: Sequence[AnyMethod] = ()) -> Job:
    """Returns the job in a TOML file. Raises InvalidJob with the file and the line.

    Args:
        path: The file; `fedbbpt init` writes one.
        methods: Methods of your own that the job may name, besides the built-in and the installed ones. They are passed
            where they are used, and not registered anywhere: two jobs in one notebook may use two versions of a method.
    """
    return read_job(Path(path), methods)


def make_job(tables: Mapping[str, Any], *, methods: Sequence[AnyMethod] = ()) -> Job:
    """Returns the job that a dictionary describes. Keys that are left out have their defaults.

    >>> make_job({"run": {"rounds": 3}, "ptm": {"model": "fake"}}).run.rounds
    3

    Args:
        tables: The tables of a job file.
        methods: As for `load_job`.

    Raises:
        InvalidJob: A key or a value is wrong.
    """
    return job_of(json.loads(json.dumps(tables)), "", "job", methods)
