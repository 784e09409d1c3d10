"""Changes a job file in place, and keeps its comments and its layout."""

import re
from collections.abc import Sequence

import tomlkit

from fedbbpt.errors import InvalidJob

_HEADER = re.compile(r"^[ \t]*\[[ \t]*task[ \t]*\][ \t]*(#.*)?$", re.MULTILINE)


def with_wording(text: str, template: str, labels: Sequence[str], classes: Sequence[str]) -> str:
    """Returns the TOML text of a job with a template and class texts; its preset, which has its own, is removed.

    Raises:
        InvalidJob: `task` is not a table.
    """
    document = tomlkit.parse(text)
    task = document.get("task", {})
    if not isinstance(task, dict):
        raise InvalidJob("task is not a table", where="job", fix="a section [task]")
    values = {"template": template, "labels": list(labels), "classes": list(classes)}
    if task.get("preset"):
        del task["preset"]
    header = _HEADER.search(text) is not None
    added = {key: value for key, value in values.items() if key not in task}
    if not header and any(not isinstance(value, dict) for value in task.values()):
        added = {}  # its keys are written as task.template = "...", or inline
    for key in values.keys() - added.keys():
        task[key] = values[key]
    lines = [f"{key} = {tomlkit.item(value).as_string()}" for key, value in added.items()]
    changed = tomlkit.dumps(document)
    if not lines:
        return changed
    if not header:
        return "\n".join([changed.rstrip("\n"), "", "[task]", *lines, ""])
    # After the header, and not at the section's end, where the comment above the next section may stand.
    return _HEADER.sub(lambda found: "\n".join([found[0], *lines]), changed, count=1)
