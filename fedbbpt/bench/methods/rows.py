"""The rows of a comparison: each a small job file that says how a method searches, and nothing of data or model.

A row may hold `[method]`, `[task.prompt]`, `[cohort]` and `[codec]`; the grid gives the rest, the same to all rows. One
more key says with whose data it searches: `learns = "together"` (the default: a federation), "pooled" (one client
that has everybody's examples: what federation could reach at best) or "alone" (each client for itself).
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

OWN = {"method", "task", "cohort", "codec"}


@dataclass(frozen=True, slots=True)
class Row:
    """A job file without its data: `name` in tables, `where` in errors."""

    name: str
    text: str
    where: str

    @property
    def learns(self) -> Learns:
        value = parse_toml(self.text, self.where, InvalidJob).get("learns", "together")
        if value not in get_args(Learns):
            raise InvalidJob(f"learns = {value!r}", where=self.where, fix=f"one of {', '.join(get_args(Learns))}")
        found: Learns = value
        return found

    def job(self, grid: dict[str, Any], initial_text: str) -> Job:
        """The grid's job with what the row says. Raises InvalidJob with the row's line."""
        tables = parse_toml(self.text, self.where, InvalidJob)
        tables.pop("learns", None)
        task, cohort = self._table(tables, "task"), self._table(tables, "cohort")
        strange = [*sorted(tables.keys() - OWN), *sorted(f"task.{key}" for key in task.keys() - {"prompt"})]
        if strange:
            fix = "method, task.prompt, cohort, codec and learns; the rest is the same for all rows"
            raise InvalidJob(f"{strange[0]!r} is not a row's to say", where=self.where, fix=fix)
        if "name" not in self._table(tables, "method"):
            raise InvalidJob("no method", where=self.where, fix="[method] with its name")
        prompt = self._table(task, "prompt")
        if prompt.get("kind", "latent") == "latent":
            prompt = {"initial_text": initial_text, **prompt}
        own = {"task": {**grid["task"], "prompt": prompt}, "cohort": {**grid["cohort"], **cohort}}
        return job_of({**grid, **tables, **own}, self.text, self.where)

    def _table(self, tables: dict[str, Any], key: str) -> dict[str, Any]:
        found = tables.get(key, {})
        if not isinstance(found, dict):
            raise InvalidJob(f"{key} = {found!r}", where=self.where, fix="a table")
        return found


def built_in() -> dict[str, Row]:
    """The rows that come with the framework, by name."""
    files = sorted(resources.files(__package__).joinpath("rows").iterdir(), key=lambda file: file.name)
    return {name: Row(name, file.read_text(encoding="utf-8"), name) for file in files if (name := _stem(file.name))}


def choose(wanted: Sequence[str], controls: Sequence[str]) -> tuple[str | Row, ...]:
    """Controls and rows by name, files, or folders of files; all that are built in where none are wanted."""
    rows = built_in()
    if not wanted:
        return (*controls, *rows.values())
    chosen = [row for word in wanted for row in _chosen(word, rows, controls)]
    names = [row if isinstance(row, str) else row.name for row in chosen]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{name!r} is there twice", where="--methods", fix="each once")
    return tuple(chosen)


def _chosen(word: str, rows: dict[str, Row], controls: Sequence[str]) -> Iterator[str | Row]:
    path = Path(word)
    if word in controls:
        yield word
    elif word in rows:
        yield rows[word]
    elif path.is_file() or path.is_dir():
        for file in [path] if path.is_file() else sorted(path.glob("*.toml")):
            try:
                yield Row(file.stem, file.read_text(encoding="utf-8"), str(file))
            except UnicodeDecodeError as error:
                raise InvalidJob(str(error), where=str(file), fix="a TOML file") from None
    else:
        fix = f"a TOML file, a folder of them, or one of {', '.join([*controls, *rows])}"
        raise InvalidInput(f"{word!r} is unknown", where="--methods", fix=fix)


def _stem(name: str) -> str:
    return name.removesuffix(".toml") if name.endswith(".toml") else ""
