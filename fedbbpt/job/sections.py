"""The sections of a job file except `[method]`, which belongs to the method, and `[task.prompt]`."""

import json
import math
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedbbpt.codecs import CODECS, SPARSE
from fedbbpt.data.columns import Columns
from fedbbpt.errors import InvalidInput
from fedbbpt.job.prompt_sections import LatentPromptSection, PromptSection
from fedbbpt.limits import MAX_ROUNDS, MAX_RUN_CLIENTS
from fedbbpt.ptm.models.loading import Misfit, find_misfit
from fedbbpt.server.robust.defence import KRUM_CLIENTS, RULES
from fedbbpt.tasks.general_views import GENERAL_VIEWS
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import PrecisionChoice
from fedbbpt.wire.addresses import parse_address


class RunSection(Section):
    """`[run]`: the run as a whole."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="The run's name in logs and reports.")
    seed: int = Field(0, ge=0, lt=2**63, description="Determines every random draw of the run.")
    rounds: int = Field(50, ge=1, le=MAX_ROUNDS, description="Number of rounds. The server takes one step after each.")


class PtmSection(Section):
    """`[ptm]`: the pre-trained model, and how a service that `fedbbpt run` starts computes it."""

    model: str = Field(
        "all-MiniLM-L6-v2",
        description="all-MiniLM-L6-v2, SmolLM2-135M-Instruct, fake, a local folder, a Hugging Face name, MODEL.gguf, "
        "MODEL.onnx, openai:MODEL@URL, or openai-chat:MODEL@URL.",
    )
    address: str = Field(
        "",
        description="HOST:PORT of a running PTM service, or several separated by commas. "
        "Empty: `fedbbpt run` starts one.",
    )
    revision: str = Field(
        "", description="The only revision of the model that the run accepts. Empty: the one that the service has."
    )
    family: str = Field("", description="How a checkpoint is scored. Empty: as its architecture suggests.")
    device: str = Field("cpu", description="The device that computes: cpu, or a name that torch knows, such as cuda.")
    precision: PrecisionChoice = Field(
        PrecisionChoice.AUTO,
        description="Precision of the model's layers. auto: bfloat16 where a measurement at the start finds it faster "
        "and nearly as accurate, otherwise float32.",
    )
    max_length: int = Field(
        0, ge=0, description="Most tokens of an input, prompt included. 0: as many as the model takes."
    )
    threads: int = Field(0, ge=0, description="Threads that compute the model. 0: one for each core.")
    send_labels: bool = Field(
        False,
        description="Whether commands of this job may send labels to the service at ptm.address. One that returns "
        "losses only needs them.",
    )

    @model_validator(mode="after")
    def _model_has_options(self) -> "PtmSection":
        if (misfit := self.find_misfit()) is not None:
            raise contradiction(misfit.key, misfit.what, misfit.fix)
        return self

    def find_misfit(self) -> Misfit | None:
        """Returns the first key that fits neither the model nor a running service; None if there is none."""
        options = self.options()
        if not self.address:
            return find_misfit(self.model, **options)
        for key, value in options.items():
            if value != type(self).model_fields[key].default:
                what = "it is for a model that is loaded here, and ptm.address names a running service"
                return Misfit(key, what, "the option of `fedbbpt ptm serve` instead, or no address")
        return None

    def options(self) -> dict[str, Any]:
        """Returns how the model is loaded, in the form that `ptm.models.loading.load` takes, without its threads."""
        return {name: getattr(self, name) for name in ("family", "device", "precision", "max_length")}

    @model_validator(mode="after")
    def _address_is_one(self) -> "PtmSection":
        try:
            if self.address:
                parse_address(self.address)
        except InvalidInput as error:
            raise contradiction("address", error.what, error.fix) from None
        return self


def _listed_views(given: Any) -> Any:
    if isinstance(given, list):
        return tuple(given)
    if isinstance(given, str) and given != "general":
        raise PydanticCustomError("views", "input should be a valid array, or input should be 'general'")
    return GENERAL_VIEWS if given == "general" else given


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
    columns: tuple[str, ...] | Literal["general"] = Field(
        (),
        description="Further label words or descriptions that the model scores, from which a readout tells the "
        "classes apart. general: a list that suits the model.",
    )
    views: Annotated[tuple[str, ...], BeforeValidator(_listed_views)] = Field(
        (),
        description="Text prompts that stay the same, under each of which a readout sees the scores; an empty one is "
        "no prompt. general: a list of sixteen, each of which costs one more query per example. Empty: one without a "
        "prompt if there are columns, otherwise no readout.",
    )
    prompt: PromptSection = LatentPromptSection()

    @model_validator(mode="after")
    def _readout_fits(self) -> "TaskSection":
        listed = () if self.columns == "general" else self.columns
        for key, texts, others in (("columns", listed, self.classes), ("views", self.views, ())):
            for text in texts:
                if texts.count(text) > 1 or text in others:
                    what = f"{text!r} is given twice" + (", once in task.classes" if text in others else "")
                    raise contradiction(key, what, "each text once")
        if any(not text.strip() for text in listed):
            raise contradiction("columns", "an empty text", "a label word or a description")
        if (self.views or self.columns) and getattr(self.prompt, "offsets", False):
            fix = "offsets = false, or no views, no columns"
            raise contradiction("prompt.offsets", "a readout has offsets of its own", fix)
        return self

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
    delimiter: str = Field(
        "", description="Character between the columns of a CSV file, or tab. Empty: found in the file."
    )
    encoding: str = Field(
        "", description="Encoding of a text file, such as cp1252. Empty: UTF-8, or what its byte order mark says."
    )
    shots_per_class: int = Field(16, ge=0, description="Training examples of each class. 0: all.")
    shots: Literal["total", "client"] = Field(
        "total", description="Whether shots_per_class applies to the whole federation or to each client."
    )
    dev_shots_per_class: int = Field(
        16, ge=0, description="Dev examples of each class, or all of a class that has fewer. 0: all."
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

    def columns(self) -> Columns:
        """Returns the columns of the source, without the one that names clients."""
        return Columns(
            self.text_column, self.pair_column, self.label_column, delimiter=self.delimiter, encoding=self.encoding
        )

    @model_validator(mode="after")
    def _column_fits_partition(self) -> "DataSection":
        if (self.partition == "column") != bool(self.partition_column):
            what = f"{json.dumps(self.partition_column)} with data.partition = {json.dumps(self.partition)}"
            raise contradiction("partition_column", what, 'a column and partition = "column", or neither')
        return self


class CohortSection(Section):
    """`[cohort]`: which clients take part in a round, and how long it waits for them."""

    clients: int = Field(4, ge=1, le=MAX_RUN_CLIENTS, description="The run starts when this many clients have joined.")
    mode: Literal["sync", "async"] = Field(
        "sync",
        description="sync: a round waits for its clients. async: it takes the first updates that arrive, also those of "
        "clients that are still at work on an earlier round.",
    )
    buffer: int = Field(
        0, ge=0, le=10_000, description="async: number of updates that a round closes with. 0: half the clients."
    )
    max_staleness: int = Field(
        4, ge=0, le=64, description="async: an update still counts so many rounds after its own, with less weight."
    )
    size: int = Field(0, ge=0, description="Number of clients that take part in each round. 0: all.")
    over_sample: float = Field(
        1.0,
        ge=1,
        le=10,
        description="With a size: how many times as many clients are asked. The round closes when size have answered.",
    )
    quorum: float = Field(
        0.5, gt=0, le=1, description="Share of a round's clients, or of its buffer, that it needs by its deadline."
    )
    robust: Literal["none", "clip", "median", "trimmed", "krum"] = Field(
        "none",
        description="How updates are combined if clients may lie. clip: no client counts for more than the median one, "
        "and fed-cma's ranks in place of losses; median, trimmed (mean), krum: see docs/guides/adversaries.md.",
    )
    adversaries: int = Field(0, ge=0, description="With robust: how many clients of a round may lie.")
    deadline_seconds: float = Field(
        300.0,
        gt=0,
        le=7 * 86_400,
        description="After this time a round closes without the missing clients, if it has its quorum.",
    )

    @property
    def updates(self) -> int:
        """The number of updates with which a round is complete."""
        if self.mode == "async":
            return self.buffer or math.ceil(self.clients / 2)
        return self.size or self.clients

    @model_validator(mode="after")
    def _mode_has_options(self) -> "CohortSection":
        if self.mode == "sync":
            default = type(self).model_fields["max_staleness"].default
            for key, changed in (("buffer", self.buffer), ("max_staleness", self.max_staleness != default)):
                if changed:
                    raise contradiction(key, "it is for asynchronous rounds", 'cohort.mode = "async" as well')
            return self
        if self.buffer > self.clients:
            what = f"{self.buffer} is more than cohort.clients = {self.clients}"
            raise contradiction("buffer", what, f"at most {self.clients}, or 0 for half of them")
        if self.size:
            what = "asynchronous rounds ask every client that is free"
            raise contradiction("size", what, 'cohort.buffer instead, or mode = "sync"')
        return self

    @model_validator(mode="after")
    def _robust_has_adversaries(self) -> "CohortSection":
        if self.robust == "none":
            if self.adversaries:
                fix = 'cohort.robust = "clip", or another rule, as well'
                raise contradiction("adversaries", "without a rule, no lie is expected", fix)
            return self
        if not self.adversaries:
            raise contradiction("adversaries", f"{json.dumps(self.robust)} needs their number", "at least 1")
        if self.mode == "async":
            what = "late updates begin elsewhere, and cannot be compared with others"
            raise contradiction("robust", what, 'cohort.mode = "sync", or "none"')
        fewest, answers = RULES[self.robust].fewest(self.adversaries), math.ceil(self.quorum * self.updates)
        if answers < fewest:
            what = f"a round may close with {answers} clients, and {json.dumps(self.robust)} needs {fewest} for them"
            if fewest <= self.updates:
                fix = f"cohort.quorum = {math.ceil(1000 * fewest / self.updates) / 1000:g} or more, or fewer of them"
            else:
                fix = f"{fewest} clients in a round, or fewer adversaries"
            raise contradiction("adversaries", what, fix)
        if self.robust == "krum" and self.updates > KRUM_CLIENTS:
            what = f"it compares each pair of the {self.updates} clients of a round"
            raise contradiction("robust", what, f'at most {KRUM_CLIENTS} clients in a round, or "trimmed"')
        return self

    @model_validator(mode="after")
    def _size_fits_clients(self) -> "CohortSection":
        if self.size > self.clients:
            what = f"{self.size} is more than cohort.clients = {self.clients}"
            raise contradiction("size", what, f"at most {self.clients}, or 0 for all")
        if self.over_sample > 1 and not self.size:
            raise contradiction("over_sample", "without a size, all clients are asked", "cohort.size as well")
        if math.ceil(self.size * self.over_sample) > self.clients:
            what = f"{self.over_sample:g} times cohort.size = {self.size} is more than cohort.clients = {self.clients}"
            raise contradiction("over_sample", what, f"at most {self.clients / self.size:g}")
        return self


CodecName: TypeAlias = Literal[
    "float32", "float16", "bfloat16", "int8", "int4", "rotate+int8", "rotate+int4", "topk+float16", "topk+int8"
]


class CodecSection(Section):
    """`[codec]`: the encoding of what travels."""

    uplink: Literal["auto", CodecName] = Field(
        "auto",
        description="Encoding of the updates that clients send; auto: float16 for Newton steps without a readout, "
        "float32 otherwise.",
    )
    downlink: Literal["auto", CodecName] = Field(
        "auto",
        description="Encoding of what broadcasts change from round to round; auto: what suits the method. float32: "
        "broadcasts travel whole, or clients replay the search.",
    )
    kept: float = Field(
        0.1,
        gt=0,
        le=1,
        description="With topk: share of the numbers that travel, the largest ones; the rest follows in later rounds.",
    )


assert {*CODECS, *SPARSE} == set(get_args(CodecName)), "`CodecName` lists every codec"
