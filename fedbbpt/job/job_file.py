"""Writes job files with an explanation above each key, taken from the sections' own types."""

import json
import textwrap
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from fedbbpt.job.config import Job
from fedbbpt.methods import method_names
from fedbbpt.methods.method import MethodConfig

WIDTH = 118
"""Characters in a line of comment, at most."""

_SECTIONS = {
    "run": "The run as a whole.",
    "ptm": "The pre-trained model that clients query.",
    "task": "The classification task.",
    "task.prompt": "The prompt that the run searches for.",
    "data": "The examples, and how `run` and `simulate` share them out. Clients that join by hand bring their own.",
    "method": "How the federation searches.",
    "method.readout": "The readout that tells the classes apart by the scores of the columns.",
    "cohort": "The clients that take part in a round, and how long it waits for them.",
    "codec": "How arrays are encoded on their way.",
    "privacy": "How much the run may reveal about one client, or about one example.",
    "log": "The tools that the run is shown in, besides its own files. See docs/guides/logging.md.",
}


def job_text(job: Job) -> str:
    """Returns a TOML text that `job.config.parse_job` reads as `job`."""
    lines = ["# A federation. `fedbbpt run THIS_FILE` runs it on this machine, as real processes.", ""]
    for name, section in tables_of(job):
        lines += [*_comment(_SECTIONS[name]), f"[{name}]"]
        for key, value in section:
            if isinstance(value, BaseModel):
                continue
            field = type(section).model_fields[key]
            note = _methods(job) if isinstance(section, MethodConfig) and key == "name" else field.description or ""
            lines += [*_comment(note + _choices(field.annotation)), f"{key} = {_toml(value)}"]
        lines.append("")
    return "\n".join(lines)


def tables_of(job: Job) -> list[tuple[str, BaseModel]]:
    """Returns the tables of a job by name, in the order of its file."""
    readout = [("method.readout", job.method.readout)] if job.task.views else []
    return [
        ("run", job.run),
        ("ptm", job.ptm),
        ("task", job.task),
        ("task.prompt", job.task.prompt),
        ("data", job.data),
        ("method", job.method),
        *readout,
        ("cohort", job.cohort),
        ("codec", job.codec),
        ("privacy", job.privacy),
        ("log", job.log),
    ]


def _methods(job: Job) -> str:
    return "One of " + ", ".join(method_names([job.definition()])) + "."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _choices(annotation: Any) -> str:
    """The values that a key may have, if they are few."""
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        values = tuple(member.value for member in annotation)
    else:
        values = ()
    return f" One of {', '.join(map(str, values))}." if len(values) > 1 else ""


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # TOML writes strings, numbers and booleans as JSON does, except for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
