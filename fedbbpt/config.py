"""A job: one typed TOML file. What does not fit is refused with its line, its key, and what would be right."""

import difflib
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidJob
from fedbbpt.methods import METHODS
from fedbbpt.methods.fed_bbpt import FedBbptConfig
from fedbbpt.methods.fed_bpt import FedBptConfig
from fedbbpt.methods.fed_cma import FedCmaConfig
from fedbbpt.methods.method import Method
from fedbbpt.types import Projection, ProjectionKind, PromptSpace


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _contradiction(key: str, what: str, fix: str) -> PydanticCustomError:
    """Between `key` of a section and another; a validator of that section raises it."""
    return PydanticCustomError("contradiction", "{what}", {"key": key, "what": what, "fix": fix})


class RunSection(Section):
    name: str = Field("run", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Names the run in logs and reports.")
    seed: int = Field(0, ge=0, lt=2**63, description="Every random draw follows from it.")
    rounds: int = Field(50, ge=1, le=100_000, description="Server steps.")


class PtmSection(Section):
    model: str = Field(
        "all-MiniLM-L6-v2", description="all-MiniLM-L6-v2, fake, a local folder, or a Hugging Face name."
    )
    address: str = Field("", description="HOST:PORT of a running PTM service; empty: `fedbbpt run` starts one.")
    revision: str = Field("", description="The only revision that the run accepts; empty: the one that clients find.")
    threads: int = Field(0, ge=0, description="Threads of the model; 0: all cores.")


class PromptSection(Section):
    tokens: int = Field(8, ge=1, le=512, description="L, the length of the soft prompt.")
    dim: int = Field(100, ge=1, le=100_000, description="n, the length of the latent vector z.")
    initial_text: str = Field("", description="The prompt begins as this text's embeddings; empty: as zero vectors.")
    projection: ProjectionKind = Field(ProjectionKind.RADEMACHER, description="rademacher, or normal as in the papers.")
    scale: float = Field(1.0, gt=0, le=1000, description="How far sigma 1 moves a prompt, in embedding deviations.")
    offsets: bool = Field(False, description="Search one offset for each class too; it costs no queries.")


class TaskSection(Section):
    preset: str = Field("", description="The labels and class texts of a known data set, such as trec.")
    template: str = Field(
        "", description="The input, with {prompt}, {text}, {text_pair}, {mask}. Empty: prompt, then text."
    )
    labels: tuple[str, ...] = Field((), description="The names of the classes in the data. Empty: taken from the data.")
    classes: tuple[str, ...] = Field((), description="Label words or descriptions, in label order. Empty: the labels.")
    prompt: PromptSection = PromptSection()

    @model_validator(mode="after")
    def _classes_fit_labels(self) -> "TaskSection":
        for key in ("labels", "classes"):
            if self.preset and getattr(self, key):
                raise _contradiction(key, f"task.preset = {self.preset!r} brings its own", "one of the two")
        if self.classes and len(self.classes) != len(self.labels):
            what = f"{len(self.classes)} classes for {len(self.labels)} labels"
            raise _contradiction("classes", what, "one class text for each of task.labels")
        if len(set(self.labels)) != len(self.labels):
            raise _contradiction("labels", "two labels are the same", "each once")
        return self


class DataSection(Section):
    source: str = Field("demo", description="demo, a file, a folder with train/dev/test files, or a Hugging Face name.")
    text_column: str = Field("text", description="The column of the input.")
    pair_column: str = Field("text_pair", description="The column of a second input, where there is one.")
    label_column: str = Field("label", description="The column of the label.")
    shots_per_class: int = Field(16, ge=0, description="Training examples of each class over all clients; 0: all.")
    dev_shots_per_class: int = Field(16, ge=0, description="Dev examples of each class, or what there is; 0: all.")
    partition: Literal["dirichlet", "iid", "shards"] = Field("dirichlet", description="How examples go to clients.")
    alpha: float = Field(
        0.5, gt=0, description="Of the Dirichlet partition: the smaller, the more different the clients."
    )


class CohortSection(Section):
    clients: int = Field(4, ge=1, le=10_000, description="The run begins when so many have joined.")
    size: int = Field(0, ge=0, description="Clients asked in each round; 0: all.")
    quorum: float = Field(
        0.5, gt=0, le=1, description="The share of a round's cohort that must answer by its deadline."
    )
    deadline_seconds: float = Field(300.0, gt=0, le=7 * 86_400, description="After it a round goes on with its quorum.")

    @model_validator(mode="after")
    def _size_fits_clients(self) -> "CohortSection":
        if self.size > self.clients:
            fix = f"at most {self.clients}, or 0 for all"
            raise _contradiction("size", f"{self.size} of cohort.clients = {self.clients}", fix)
        return self


class CodecSection(Section):
    uplink: Literal["float32", "float16", "int8"] = Field("float32", description="How updates travel.")


MethodSection = Annotated[FedCmaConfig | FedBptConfig | FedBbptConfig, Field(discriminator="name")]


class Job(Section):
    """Everything that a run is, but for its data's content."""

    run: RunSection = RunSection()
    ptm: PtmSection = PtmSection()
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    method: MethodSection = FedCmaConfig()
    cohort: CohortSection = CohortSection()
    codec: CodecSection = CodecSection()

    def space(self) -> PromptSpace:
        prompt = self.task.prompt
        offsets = len(self.task.labels) if prompt.offsets else 0
        return PromptSpace(
            prompt.dim + offsets,
            Projection(
                prompt.projection,
                seeds.derive(self.run.seed, "projection"),
                prompt.tokens,
                prompt.scale,
                prompt.initial_text,
            ),
            offsets,
        )

    def entry(self) -> Method:
        return METHODS[self.method.name]

    def digest(self, ptm_revision: str) -> str:
        """Of what decides the run's course: a store that was begun with another digest is another run's."""
        parts = self.model_dump_json(exclude={"ptm": {"address", "threads"}})
        return hashlib.sha256(f"{parts}\n{ptm_revision}".encode()).hexdigest()


def read_job(path: Path) -> Job:
    """Raises InvalidJob with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJob(str(error), where=str(path), fix="a TOML file; `fedbbpt init` writes one") from None
    return parse_job(text, str(path))


def parse_job(text: str, name: str = "job") -> Job:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at line ")
        where = f"{name}:{place.partition(',')[0]}" if place[:1].isdigit() else name
        raise InvalidJob(f"not TOML: {what}", where=where) from None
    try:
        # By way of JSON, because there strict means that a text is no number but a list is a tuple.
        return Job.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        raise _explain(problem, text, name) from None


def _explain(problem: Any, text: str, name: str) -> InvalidJob:
    """The first problem that pydantic found, in the words of the file."""
    # A discriminated union puts the chosen method's name into the path; the file has no such key.
    path = [str(part) for part in problem["loc"] if str(part) not in METHODS]
    key, where = ".".join(path), f"{name}:{_line(text, path)}"
    if problem["type"] == "extra_forbidden":
        known = _known(path[:-1], text)
        close = difflib.get_close_matches(path[-1], known, n=1)
        fix = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return InvalidJob(f"unknown key {key!r}", where=where, fix=fix)
    if problem["type"].startswith("union_tag"):
        return InvalidJob(f"{key}.name is missing or unknown", where=where, fix=f"one of {', '.join(sorted(METHODS))}")
    if problem["type"] == "contradiction":
        context = problem["ctx"]
        path.append(context["key"])
        where = f"{name}:{_line(text, path)}"
        return InvalidJob(f"{'.'.join(path)}: {context['what']}", where=where, fix=context["fix"])
    message = str(problem["msg"])
    value = problem["input"]
    given = "" if isinstance(value, (dict, BaseModel)) else f" = {json.dumps(value, ensure_ascii=False)}"
    return InvalidJob(f"{key}{given}: {message[0].lower()}{message[1:]}", where=where)


def _known(path: list[str], text: str) -> list[str]:
    """The keys that the table at `path` takes."""
    section: type[BaseModel] = Job
    for part in path:
        if part == "method":
            section = METHODS[tomllib.loads(text)["method"]["name"]].config
        else:
            section = type(section.model_fields[part].get_default(call_default_factory=True))
    return list(section.model_fields)


def _line(text: str, path: list[str]) -> int:
    """The line of the key at `path`; where it stands on no line of its own, that of the nearest table or key above."""
    table: list[str] = []
    found, depth = 1, 0
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            here = table = re.split(r"\s*\.\s*", header[1])
        elif key := re.match(r"\s*([A-Za-z0-9_.-]+|\"[^\"]*\")\s*=", line):
            here = [*table, *key[1].strip('"').split(".")]
        else:
            continue
        if len(here) > depth and here == path[: len(here)]:
            found, depth = number, len(here)
    return found


assert set(CODECS) == {"float32", "float16", "int8"}, "the job's codecs are the registered ones"
