"""A job: everything that defines a run except the content of its data, as one typed TOML file.

A wrong key or value is rejected with its line, its key, and what would be right.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    PlainValidator,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedbbpt.errors import InvalidJob, reason
from fedbbpt.job.log_section import LogSection
from fedbbpt.job.privacy_checks import check_privacy
from fedbbpt.job.privacy_section import PrivacySection
from fedbbpt.job.prompt_sections import PROMPTS, DeepPromptSection, NoPromptSection
from fedbbpt.job.robust_checks import check_robust
from fedbbpt.job.sections import CodecSection, CohortSection, DataSection, PtmSection, RunSection, TaskSection
from fedbbpt.methods import find_method, method_names
from fedbbpt.methods.fed_cma import FedCmaConfig
from fedbbpt.methods.method import AnyMethod, MethodConfig, ReadoutConfig
from fedbbpt.prompts import Space
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.toml.problems import KeyPath, Problem, first_problem, line_of, parse_toml
from fedbbpt.toml.section import Section, contradiction

BYTES_PER_TOKEN = 2
"""Bytes of a view, in UTF-8, for which one token of room is left. Most tokens are longer, so the room is enough."""


def _read_method(table: Any, info: ValidationInfo) -> MethodConfig:
    """Returns the config of the method that the table names; which keys it may have depends on the name alone."""
    if isinstance(table, MethodConfig):
        return table
    own: Sequence[AnyMethod] = info.context or ()
    name = table.get("name") if isinstance(table, dict) else None
    method = find_method(name, own) if isinstance(name, str) else None
    if method is None:
        what = "method.name is missing" if name is None else f"method.name = {name!r} is unknown"
        fix = f"one of {', '.join(method_names(own))}, or the name of an installed plug-in"
        raise PydanticCustomError("unknown_method", "{what}", {"what": what, "fix": fix})
    config: MethodConfig
    if info.mode == "json":
        config = method.config.model_validate_json(json.dumps(table), strict=True)
    else:
        config = method.config.model_validate(table)
    return config


MethodSection = Annotated[SerializeAsAny[MethodConfig], PlainValidator(_read_method)]


class Job(Section):
    """A job file. Every section and key has a default."""

    run: RunSection = RunSection()
    ptm: PtmSection = PtmSection()
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    method: MethodSection = FedCmaConfig()
    cohort: CohortSection = CohortSection()
    codec: CodecSection = CodecSection()
    privacy: PrivacySection = PrivacySection()
    log: LogSection = LogSection()
    _own_methods: tuple[AnyMethod, ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any, /) -> None:
        """Keeps the methods that the caller defines itself, so that the job finds its own among them."""
        self._own_methods = tuple(context or ())

    @model_validator(mode="after")
    def _method_takes_prompt(self) -> "Job":
        job, kinds = self, self.definition().spaces(self.method)
        only = {frozenset({"deep"}): DeepPromptSection(), frozenset({"none"}): NoPromptSection()}.get(kinds)
        if only is not None and "prompt" not in job.task.model_fields_set:
            job = job._with_task(prompt=only)
        kind = job.task.prompt.kind
        if kind not in kinds:
            what = f"{job.method.name} does not search for {json.dumps(kind)} prompts with these settings"
            raise contradiction("task.prompt.kind", what, " or ".join(map(json.dumps, sorted(kinds))))
        read_out = kind == "none" or job.task.columns
        return job._with_task(views=("",)) if read_out and not job.task.views else job

    @model_validator(mode="after")
    def _method_takes_readout(self) -> "Job":
        method = self.method
        if not self.task.views:
            if method.readout != ReadoutConfig():
                raise contradiction(
                    "method.readout", "the task has no readout", 'task.columns = "general", or no table'
                )
            return self
        if self.definition().white_box:
            what = f"clients of {method.name} train a model of their own, which has no readout"
            raise contradiction("task.views", what, "no views and no columns, or another method")
        if self.codec.uplink not in ("auto", "float32"):
            what = "the sums that a readout is fitted from need more digits"
            raise contradiction("codec.uplink", what, '"float32"')
        before = 2 * method.readout.rounds
        if self.task.prompt.kind != "none" and self.run.rounds <= before:
            what = f"the readout may be fitted for {before} rounds before the search begins"
            raise contradiction("run.rounds", what, f"more than {before}, or a lower method.readout.rounds")
        return self

    @model_validator(mode="after")
    def _method_takes_mode(self) -> "Job":
        if self.cohort.mode == "async":
            why = self.definition().stale(self.method)
            why = why or ("a readout is fitted to all clients at one prompt" if self.task.views else "")
            if why:
                what = f"{self.method.name} needs all updates of a round from one broadcast: {why}"
                raise contradiction("cohort.mode", what, '"sync", or method.name = "fedavg-bbt" or "fed-bbpt"')
        return self

    @model_validator(mode="after")
    def _privacy_holds(self) -> "Job":
        check_privacy(self, self.definition())
        return self

    @model_validator(mode="after")
    def _robust_works(self) -> "Job":
        check_robust(self, self.definition())
        return self

    def _with_task(self, **changes: Any) -> "Job":
        return self.model_copy(update={"task": self.task.model_copy(update=changes)})

    def space(self) -> Space:
        """Returns the space that the run searches.

        Raises:
            InvalidJob: It depends on data that has not been read, or on a model that has not been asked.
        """
        task = self.task
        prompt = task.prompt.space(self.run.seed, len(task.labels))
        if not task.views:
            return prompt
        room = max(len(view.encode()) // BYTES_PER_TOKEN + 2 for view in task.views) if any(task.views) else 0
        return ReadoutSpace(prompt, task.views, room, len(task.labels), len(task.labels) + len(self.columns()))

    def without_log(self) -> "Job":
        """Returns the job of a process that shows the run in no tool, since another process does."""
        return self.model_copy(update={"log": LogSection()})

    def prompt_tokens(self) -> int:
        """Returns the number of tokens that texts leave free for a prompt and the views, whatever the columns are.

        Raises:
            InvalidJob: It depends on data that has not been read.
        """
        return self.with_columns(()).space().prompt_tokens

    def with_columns(self, columns: tuple[str, ...]) -> "Job":
        """Returns the job with these columns in place of its own."""
        return self._with_task(columns=columns)

    def columns(self) -> tuple[str, ...]:
        """Returns the texts that the model scores besides the classes.

        Raises:
            InvalidJob: They depend on a model that has not been asked.
        """
        if self.task.columns == "general":
            what = 'task.columns = "general" depends on the model, which this command does not ask'
            raise InvalidJob(
                what,
                where="job",
                fix="the list that `fedbbpt run` writes into job.toml of its folder, or one of your own",
            )
        return self.task.columns

    def definition(self) -> AnyMethod:
        """Returns the definition of the job's method, whose config is `method`."""
        method = find_method(self.method.name, self._own_methods)
        assert method is not None, "the config was read by this method"
        return method

    def digest(self, ptm_revision: str) -> str:
        """Returns the SHA-256 of everything that determines the run's course, in hexadecimal digits.

        A store that was created with another digest belongs to another run.
        """
        parts = self.model_dump_json(exclude={"ptm": {"address", "threads", "send_labels"}, "log": True})
        return hashlib.sha256(f"{parts}\n{ptm_revision}".encode()).hexdigest()


def read_job(path: Path, methods: Sequence[AnyMethod] = ()) -> Job:
    """Reads a job file. `methods` are those that the caller defines itself. Raises InvalidJob with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJob(reason(error), where=str(path), fix="a TOML file; `fedbbpt init` writes one") from None
    return parse_job(text, str(path), methods)


def parse_job(text: str, name: str = "job", methods: Sequence[AnyMethod] = ()) -> Job:
    """Returns the job in a TOML text. Raises InvalidJob with the line.

    Args:
        name: The name of the file, for messages.
        methods: Methods that the caller defines itself, without installing them.
    """
    return job_of(parse_toml(text, name, InvalidJob), text, name, methods)


def job_of(tables: Mapping[str, Any], text: str, name: str, methods: Sequence[AnyMethod] = ()) -> Job:
    """Returns the job that the tables of the TOML `text` describe; some tables may have been added to the text's own.

    Raises:
        InvalidJob: A key or value is wrong. The message has the line in `text` and the file `name`.
    """
    try:
        # Validated as JSON, where pydantic's strict mode rejects a string for a number but takes a list for a tuple.
        return Job.model_validate_json(json.dumps(tables, default=str), strict=True, context=methods)
    except ValidationError as error:
        problem = _unknown_kind(error) or first_problem(
            error, lambda path: _known_keys(path, tables, methods), unions={("task", "prompt")}
        )
        raise InvalidJob(problem.what, where=f"{name}:{line_of(text, problem.path)}", fix=problem.fix) from None


def _unknown_kind(error: ValidationError) -> Problem | None:
    """The problem of a method or a kind of prompt that does not exist, if that is the first."""
    first = error.errors()[0]
    path = tuple(map(str, first["loc"]))
    if first["type"].startswith("union_tag"):
        return Problem(path, f"{'.'.join(path)}.kind is missing or unknown", f"one of {', '.join(PROMPTS)}")
    if first["type"] == "unknown_method":
        return Problem(path, first["msg"], first["ctx"]["fix"])
    return None


def _known_keys(path: KeyPath, tables: Mapping[str, Any], methods: Sequence[AnyMethod]) -> list[str]:
    """The keys of the section at `path`; none where there is no section."""
    section: type[BaseModel]
    match path:
        case ():
            section = Job
        case ("method",):
            method = find_method(tables["method"]["name"], methods)
            assert method is not None, "an unknown method is an earlier problem"
            section = method.config
        case ("task", "prompt"):
            section = PROMPTS[tables["task"]["prompt"].get("kind", "latent")]
        case ("method", "readout"):
            section = ReadoutConfig
        case (name,) if name in Job.model_fields:
            section = type(Job.model_fields[name].default)
        case _:
            return []
    return list(section.model_fields)
