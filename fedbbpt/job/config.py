"""A job: everything that defines a run except the content of its data, as one typed TOML file.

A wrong key or value is rejected with its line, its key, and what would be right.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidJob
from fedbbpt.job.prompt_sections import PROMPTS, DeepPromptSection, LatentPromptSection, PromptSection
from fedbbpt.methods import find_method, method_names
from fedbbpt.methods.fed_cma import FedCmaConfig
from fedbbpt.methods.method import AnyMethod, MethodConfig
from fedbbpt.prompts import Space
from fedbbpt.toml.problems import KeyPath, Problem, first_problem, line_of, parse_toml
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Precision


class RunSection(Section):
    """`[run]`: the run as a whole."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="The run's name in logs and reports.")
    seed: int = Field(0, ge=0, lt=2**63, description="Determines every random draw of the run.")
    rounds: int = Field(50, ge=1, le=100_000, description="Number of rounds. The server takes one step after each.")


class PtmSection(Section):
    """`[ptm]`: the pre-trained model, and how a service that `fedbbpt run` starts computes it."""

    model: str = Field(
        "all-MiniLM-L6-v2",
        description="all-MiniLM-L6-v2, fake, a local folder, a Hugging Face name, MODEL.onnx, or openai:MODEL@URL.",
    )
    address: str = Field(
        "",
        description="HOST:PORT of a running PTM service, or several separated by commas. "
        "Empty: `fedbbpt run` starts one.",
    )
    revision: str = Field(
        "", description="The only revision of the model that the run accepts. Empty: the one that the service has."
    )
    threads: int = Field(0, ge=0, description="Threads that compute the model. 0: one for each core.")
    precision: Precision = Field(
        Precision.FLOAT32, description="Precision of the model's layers. bfloat16 is faster but less accurate."
    )


class TaskSection(Section):
    """`[task]`: the classification task, as far as the job and not its data define it."""

    preset: str = Field("", description="A known data set, such as trec, whose labels and class texts the task takes.")
    template: str = Field(
        "",
        description="The model's input, made of {prompt}, {text}, {text_pair} and {mask}. "
        "Empty: the prompt, then the text.",
    )
    labels: tuple[str, ...] = Field((), description="Names of the classes in the data. Empty: taken from the data.")
    classes: tuple[str, ...] = Field(
        (), description="Label words or descriptions of the classes, in the order of the labels. Empty: the labels."
    )
    mapping: Literal["given", "frequency"] = Field(
        "given",
        description="frequency: each class becomes the label of the model that the server's examples of it get most "
        "often.",
    )
    prompt: PromptSection = LatentPromptSection()

    @model_validator(mode="after")
    def _classes_fit_labels(self) -> "TaskSection":
        for key in ("labels", "classes"):
            if self.preset and getattr(self, key):
                raise contradiction(key, f"task.preset = {self.preset!r} has its own", "one of the two")
        if self.classes and len(self.classes) != len(self.labels):
            what = f"{len(self.classes)} classes for {len(self.labels)} labels"
            raise contradiction("classes", what, "one class text for each of task.labels")
        if self.classes and self.mapping == "frequency":
            raise contradiction("mapping", "task.classes already names the classes", "one of the two")
        if len(set(self.labels)) != len(self.labels):
            raise contradiction("labels", "two labels are equal", "each label once")
        return self


class DataSection(Section):
    """`[data]`: the examples, and how a federation on one machine shares them out."""

    source: str = Field("demo", description="demo, a file, a folder with train/dev/test files, or a Hugging Face name.")
    text_column: str = Field("text", description="Column of the input.")
    pair_column: str = Field("text_pair", description="Column of the second input, if there is one.")
    label_column: str = Field("label", description="Column of the label.")
    shots_per_class: int = Field(16, ge=0, description="Training examples of each class. 0: all.")
    shots: Literal["total", "client"] = Field(
        "total", description="Whether shots_per_class applies to the whole federation or to each client."
    )
    dev_shots_per_class: int = Field(
        16, ge=0, description="Dev examples of each class, or fewer if there are not so many. 0: all."
    )
    server_share: float = Field(
        0.0, ge=0, lt=1, description="Share of the training examples of each class that the server keeps for itself."
    )
    partition: Literal["dirichlet", "iid", "shards", "column"] = Field(
        "dirichlet", description="How the training examples are shared out to the clients."
    )
    alpha: float = Field(
        0.5, gt=0, description="Concentration of the Dirichlet partition. The smaller, the more the clients differ."
    )
    partition_column: str = Field(
        "", description="Column of the partition by column. Each of its values becomes a client."
    )

    @model_validator(mode="after")
    def _column_fits_partition(self) -> "DataSection":
        if (self.partition == "column") != bool(self.partition_column):
            what = f"{json.dumps(self.partition_column)} with data.partition = {json.dumps(self.partition)}"
            raise contradiction("partition_column", what, 'a column and partition = "column", or neither')
        return self


class CohortSection(Section):
    """`[cohort]`: which clients take part in a round, and how long it waits for them."""

    clients: int = Field(4, ge=1, le=10_000, description="The run starts when this many clients have joined.")
    size: int = Field(0, ge=0, description="Number of clients that take part in each round. 0: all.")
    quorum: float = Field(
        0.5, gt=0, le=1, description="Share of a round's clients that must answer before its deadline."
    )
    deadline_seconds: float = Field(
        300.0,
        gt=0,
        le=7 * 86_400,
        description="After this time a round closes without the missing clients, if it has its quorum.",
    )

    @model_validator(mode="after")
    def _size_fits_clients(self) -> "CohortSection":
        if self.size > self.clients:
            what = f"{self.size} is more than cohort.clients = {self.clients}"
            raise contradiction("size", what, f"at most {self.clients}, or 0 for all")
        return self


class CodecSection(Section):
    """`[codec]`: the encoding of what travels."""

    uplink: Literal["float32", "float16", "int8"] = Field(
        "float32", description="Encoding of the updates that clients send."
    )


def _read_method(table: Any, info: ValidationInfo) -> MethodConfig:
    """Returns the config of the method that the table names; which keys it may have depends on the name alone."""
    if isinstance(table, MethodConfig):
        return table
    own: Sequence[AnyMethod] = info.context or ()
    name = table.get("name") if isinstance(table, dict) else None
    method = find_method(name, own) if isinstance(name, str) else None
    if method is None:
        fix = f"one of {', '.join(method_names(own))}"
        raise PydanticCustomError("unknown_method", "method.name is missing or unknown", {"fix": fix})
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
    _own_methods: tuple[AnyMethod, ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any, /) -> None:
        """Keeps the methods that the caller defines itself, so that the job finds its own among them."""
        self._own_methods = tuple(context or ())

    @model_validator(mode="after")
    def _method_takes_prompt(self) -> "Job":
        kind, kinds = self.task.prompt.kind, self.entry().spaces(self.method)
        if kinds == {"deep"} and "prompt" not in self.task.model_fields_set:
            return self.model_copy(update={"task": self.task.model_copy(update={"prompt": DeepPromptSection()})})
        if kind not in kinds:
            what = f"{self.method.name} does not search for {json.dumps(kind)} prompts with these settings"
            raise contradiction("task.prompt.kind", what, " or ".join(map(json.dumps, sorted(kinds))))
        return self

    def space(self) -> Space:
        """Returns the space that the run searches. Raises InvalidJob if it depends on data that are not here."""
        return self.task.prompt.space(self.run.seed, len(self.task.labels))

    def entry(self) -> AnyMethod:
        """Returns the job's method."""
        method = find_method(self.method.name, self._own_methods)
        assert method is not None, "the config was read by this method"
        return method

    def digest(self, ptm_revision: str) -> str:
        """Returns the SHA-256 of everything that determines the run's course, in hexadecimal digits.

        A store that was created with another digest belongs to another run.
        """
        parts = self.model_dump_json(exclude={"ptm": {"address", "threads"}})
        return hashlib.sha256(f"{parts}\n{ptm_revision}".encode()).hexdigest()


def read_job(path: Path, methods: Sequence[AnyMethod] = ()) -> Job:
    """Reads a job file. `methods` are those that the caller defines itself. Raises InvalidJob with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJob(str(error), where=str(path), fix="a TOML file; `fedbbpt init` writes one") from None
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
        case (name,) if name in Job.model_fields:
            section = type(Job.model_fields[name].default)
        case _:
            return []
    return list(section.model_fields)


assert set(CODECS) == {"float32", "float16", "int8"}, "`CodecSection.uplink` lists every registered codec"
