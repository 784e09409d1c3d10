"""Rows of a comparison: small job files that say how a method searches, and nothing about data or model.

A row may hold `[method]`, `[task.prompt]`, `[cohort]` and `[codec]`, and `columns` and `views` of `[task]`. The grid
gives the rest, the same to all rows. Two more keys stand before the tables. `rounds` is the most rounds of a run, which
otherwise ends with its budget. `learns` says whose examples a method searches with: "together" (the default) is a
federation; "pooled" is one client with the examples of all, the most that a federation could reach; "alone" is each
client by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.job.config import Job, job_of
from fedbbpt.toml.problems import parse_toml

Learns: TypeAlias = Literal["together", "pooled", "alone"]

OWN_TABLES = {"method", "task", "cohort", "codec"}
"""The tables that a row may set."""
OWN_TASK_KEYS = {"prompt", "columns", "views"}
"""The keys of `[task]` that a row may set."""


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A job file without its data."""

    name: str
    """Names the row in tables."""
    text: str
    where: str
    """Names the row in errors."""

    @property
    def learns(self) -> Learns:
        """The examples that the method searches with. Raises InvalidJob for an unknown value."""
        value = parse_toml(self.text, self.where, InvalidJob).get("learns", "together")
        if value not in get_args(Learns):
            raise InvalidJob(f"learns = {value!r}", where=self.where, fix=f"one of {', '.join(get_args(Learns))}")
        found: Learns = value
        return found

    def job(self, grid: dict[str, Any], initial_text: str) -> Job:
        """Returns the grid's job with the row's tables. Raises InvalidJob with the line in the row.

        `initial_text` is the text that a soft prompt begins as, unless the row sets one.
        """
        tables = parse_toml(self.text, self.where, InvalidJob)
        tables.pop("learns", None)
        rounds = tables.pop("rounds", grid["run"]["rounds"])
        task, cohort = self._table(tables, "task"), self._table(tables, "cohort")
        others = [*sorted(tables.keys() - OWN_TABLES), *sorted(f"task.{key}" for key in task.keys() - OWN_TASK_KEYS)]
        if others:
            fix = "only method, task.prompt, task.columns, task.views, cohort, codec, learns and rounds"
            raise InvalidJob(f"a row cannot set {others[0]!r}", where=self.where, fix=fix)
        if "name" not in self._table(tables, "method"):
            raise InvalidJob("the row names no method", where=self.where, fix="a table [method] with a name")
        prompt = self._table(task, "prompt")
        if prompt.get("kind", "latent") == "latent":
            prompt = {"initial_text": initial_text, **prompt}
        own = {
            "run": {**grid["run"], "rounds": rounds},
            "task": {**grid["task"], **task, "prompt": prompt},
            "cohort": {**grid["cohort"], **cohort},
        }
        return job_of({**grid, **tables, **own}, self.text, self.where)

    def _table(self, tables: dict[str, Any], key: str) -> dict[str, Any]:
        found = tables.get(key, {})
        if not isinstance(found, dict):
            raise InvalidJob(f"{key} = {found!r}", where=self.where, fix="a table")
        return found


def built_in() -> dict[str, MethodRow]:
    """Returns the rows that come with the framework, by name."""
    files = sorted(resources.files(__package__).joinpath("rows").iterdir(), key=lambda file: file.name)
    named = [(file.name.removesuffix(".toml"), file) for file in files if file.name.endswith(".toml")]
    return {name: MethodRow(name, file.read_text(encoding="utf-8"), name) for name, file in named}


def choose(wanted: Sequence[str], controls: Sequence[str]) -> tuple[str | MethodRow, ...]:
    """Returns the wanted controls and rows, or all that are built in if `wanted` is empty.

    `wanted` has names, files, and folders of files. Raises InvalidInput for an unknown or a repeated name.
    """
    rows = built_in()
    if not wanted:
        return (*controls, *rows.values())
    chosen = [row for word in wanted for row in _chosen(word, rows, controls)]
    names = [row if isinstance(row, str) else row.name for row in chosen]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{name!r} is given twice", where="--methods", fix="each method once")
    return tuple(chosen)


def _chosen(word: str, rows: dict[str, MethodRow], controls: Sequence[str]) -> Iterator[str | MethodRow]:
    path = Path(word)
    if word in controls:
        yield word
    elif word in rows:
        yield rows[word]
    elif path.is_file() or path.is_dir():
        for file in [path] if path.is_file() else sorted(path.glob("*.toml")):
            try:
                yield MethodRow(file.stem, file.read_text(encoding="utf-8"), str(file))
            except UnicodeDecodeError as error:
                raise InvalidJob(str(error), where=str(file), fix="a TOML file in UTF-8") from None
    else:
        fix = f"a TOML file, a folder of such files, or one of {', '.join([*controls, *rows])}"
        raise InvalidInput(f"unknown method {word!r}", where="--methods", fix=fix)
