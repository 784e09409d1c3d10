"""The command `evaluate`: measures a tuned prompt, or a job's model without a prompt, on labelled examples."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, JobChanges, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show, warned
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.measured import confusion_table, figures, metrics_table
from fedbbpt.cli.terminal.model import open_card, open_job
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.cli.terminal.run_tables import accuracies, gain_text
from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.examples import read, read_table
from fedbbpt.data.quality import cut_texts, review
from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.federation.comparison import Comparison, Data, compare, cost
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.evaluation import evaluate as measure
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import gain_record, gains_record
from fedbbpt.federation.splits import labelled, prepare
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.host.progress import progress
from fedbbpt.interfaces import PromptSpace, Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.prompt_sections import TOKENS_PER_CANDIDATE, TextPromptSection
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.types import LabelledExamples, TaskSpec

WITH, WITHOUT = "with the prompt", "without a prompt"
"""The two conditions that can be measured."""
DEV_EVERY = 5

_Condition: TypeAlias = tuple[str, PromptSpace, npt.NDArray[np.float32]]
"""A condition's name, and the space of its z `[n]`."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What to measure, and on which examples."""

    model: AbstractContextManager[Ptm]
    task: Callable[[Ptm], TaskSpec]
    """The task for this model: a job may leave it to the model which of its labels stand for the classes."""
    labels: Sequence[str]
    data: LabelledExamples
    conditions: Sequence[_Condition]
    compared: Data | None = None
    """The examples of the comparison with controls, if the prompt is to be compared with them."""


@with_bundles
def evaluate(
    service: PtmAccess,
    model: ModelOptions,
    names: ColumnNames,
    prompt: Annotated[
        Path | None,
        typer.Option(
            "--prompt", metavar="FILE", help="The tuned prompt: prompt.safetensors of a run.", show_default=False
        ),
    ] = None,
    job_file: Annotated[
        Path | None,
        typer.Option(
            "--job",
            metavar="JOB.toml",
            help="A job whose model and task to measure without a prompt, instead of --prompt.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Labelled examples: JSONL, CSV, Parquet, .npz of images, or a Hugging Face name. By default, with "
            "--job, its test examples.",
        ),
    ] = "",
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Measure --prompt, and the same model without a prompt too.")
    ] = False,
    train: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Labelled examples that the run was tuned on, or others like them. Offsets and, if the prompt has "
            "one, a readout are fitted on them, and --prompt is compared with each.",
            show_default=False,
        ),
    ] = "",
    model_name: options.CardModel = "",
    send_labels: options.SendLabels = False,
    json: options.Json = False,
) -> None:
    """Measure a tuned prompt, or a model without a prompt, on labelled examples.

    Shows accuracy with its 95 % interval, loss, macro-F1, figures for each class, and the confusion matrix. With
    --baseline or --train it also shows what the prompt gains, with the interval of the gain.

    Example: fedbbpt evaluate --prompt run/prompt.safetensors --data other.csv

    Example: fedbbpt evaluate --job job.toml
    """
    log_to_stderr(logging.WARNING)
    if (prompt is None) == (job_file is None):
        what = "give a prompt or a job" + (", not both" if prompt else "")
        raise InvalidInput(what, where="--prompt, --job", fix="one of the two options")
    if train and prompt is None:
        what = "controls are compared with a prompt, and there is none"
        raise InvalidInput(what, where="--train", fix="--prompt FILE")
    with progress("reading the data"):
        subject = (
            _of_prompt(prompt, data, baseline, train, service, model, names, model_name, send_labels)
            if prompt
            else _of_job(job_file, data, service, model, names, send_labels)
        )
    found: dict[str, Measured] = {}
    compared: Comparison | None = None
    with subject.model as ptm, progress("asking the model", _cost(subject), "queries") as advance:
        task = subject.task(ptm)
        for name, space, z in subject.conditions:
            scorer = PromptScorer(ptm, task if name == WITH else task.of_classes(len(subject.labels)), space)
            if subject.compared is None:
                found[name] = measure(scorer, z, subject.data, len(subject.labels), advance)
            else:
                compared = compare(ptm, task, space, z, subject.compared, progress=advance)
                found = {WITH: compared.tuned, WITHOUT: compared.without}
        truncation = scorer.truncation if compared is None else scorer.truncation_of(subject.data)
        cut = cut_texts(truncation, len(subject.data), scorer.card.max_tokens)
    warnings = warned([*review({"data": subject.data}, subject.labels), *cut])
    if json:
        (name, first), *others = found.items()
        result: dict[str, Any] = {"condition": name, **figures(first, subject.labels)}
        result["warnings"] = list(map(asdict, warnings))
        if compared is not None:
            result |= gains_record(compared)
        elif others:
            gain = first.gain_over(others[0][1])
            result["gain"] = gain and gain_record(gain)
        show(result | {other.replace(" ", "_"): figures(measured, subject.labels) for other, measured in others}, True)
        return
    out.print(metrics_table(found, subject.labels))
    if compared is not None:
        out.print(accuracies(compared))
    elif WITHOUT in found and WITH in found and (gain := found[WITH].gain_over(found[WITHOUT])):
        out.print(f"gained by the prompt: {gain_text(gain)}, on the same examples", highlight=False)
    for name, measured in found.items():
        if measured.confusion is not None:
            out.print(f"confusion {name}: true classes down, predicted classes across", style="dim")
            out.print(confusion_table(measured.confusion, subject.labels))


def _of_prompt(
    path: Path,
    data: str,
    baseline: bool,
    train: str,
    service: PtmAccess,
    options: ModelOptions,
    names: ColumnNames,
    named: str,
    send_labels: bool,
) -> _Subject:
    if not data:
        raise InvalidInput("no examples to measure the prompt on", where="--data", fix="--data PATH")
    z, card = read_prompt(path)
    conditions: list[_Condition] = [(WITH, card.space, z)]
    if baseline and not train:
        conditions.append((WITHOUT, NoPrompt(card.space.prompt_tokens), NoPrompt.Z[0]))
    examples = read(data, card.labels, names.columns())
    opened = open_card(card, service, options, named, send_labels=send_labels)
    compared = _with_dev(card.space, read(train, card.labels, names.columns()), examples) if train else None
    return _Subject(opened, lambda ptm: card.task(), card.labels, examples, conditions, compared)


def _cost(subject: _Subject) -> int:
    """The number of queries of the measurements."""
    if subject.compared is None:
        return len(subject.data) * len(subject.conditions)
    _, space, _ = subject.conditions[0]
    return cost(space, subject.compared)


def _with_dev(space: PromptSpace, train: LabelledExamples, test: LabelledExamples) -> Data:
    """The examples of a comparison. Every fifth of each class chooses a readout's penalty; then it learns from all."""
    place = np.empty(len(train), np.int64)
    place[np.argsort(train.labels, kind="stable")] = np.arange(len(train))
    dev = (place % DEV_EVERY == DEV_EVERY - 1) & isinstance(space, ReadoutSpace)
    return Data(train.take(np.flatnonzero(~dev)), train.take(np.flatnonzero(dev)), test, refit=True)


def _of_job(
    path: Path | None, data: str, service: PtmAccess, options: ModelOptions, names: ColumnNames, send_labels: bool
) -> _Subject:
    assert path is not None, "the caller has checked it"
    job = with_preset(JobChanges(**asdict(names)).apply(read_job(path)))
    model = open_job(job, service, options, send_labels=send_labels)
    if data:
        if job.task.mapping != "given":
            what = 'task.mapping = "frequency" is found on the job\'s own data'
            raise InvalidJob(what, where="--data", fix="leave --data out, or name task.classes in the job")
        job, (examples,) = labelled(job, read_table(data, job.data.columns()))
        spec = task_spec(job.with_columns(()))
        return _Subject(model, lambda ptm: spec, job.task.labels, examples, _without(job))
    splits = prepare(job)
    return _Subject(
        model,
        lambda ptm: task_spec(splits.completed_by(ptm).job),
        splits.job.task.labels,
        splits.test,
        _without(splits.job),
    )


def _without(job: Job) -> list[_Condition]:
    return [(WITHOUT, NoPrompt(_room(job)), NoPrompt.Z[0])]


def _room(job: Job) -> int:
    """The tokens that the job's prompt takes, so that texts are truncated as they are with it."""
    prompt = job.task.prompt
    # Its words may be left to the data, and do not matter here.
    if isinstance(prompt, TextPromptSection):
        return TOKENS_PER_CANDIDATE * prompt.words
    return job.prompt_tokens()
