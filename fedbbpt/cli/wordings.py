"""The command `wordings`: compares templates and class texts before anything is tuned."""

import logging
import tomllib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import JobChanges, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.model import open_job
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.errors import InvalidInput, reason
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.federation.wordings import Tried, WordingComparison, compare_wordings
from fedbbpt.host.files import atomic_write
from fedbbpt.host.progress import progress
from fedbbpt.job.config import Job, parse_job, read_job
from fedbbpt.job.job_edit import with_wording
from fedbbpt.job.settings import task_spec
from fedbbpt.tasks.wordings import built_in, find_form, guess_kind, kinds
from fedbbpt.types import ModelCard, TaskSpec


@with_bundles
def wordings(
    job_file: options.JobFile,
    changes: JobChanges,
    service: PtmAccess,
    model: ModelOptions,
    kind: Annotated[
        str,
        typer.Option(help=f"The kind of task: {', '.join(kinds())}. By default the labels decide.", show_default=False),
    ] = "",
    template: Annotated[
        list[str] | None, typer.Option(help="A template of your own to try as well. Repeat it for more.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT,TEXT,...",
            help="Class texts of your own, in the order of the labels. Repeat it for more.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", help="A file with templates = [...] and classes = [[...], ...].", show_default=False
        ),
    ] = None,
    own_only: Annotated[bool, typer.Option("--own-only", help="Leave out the built-in wordings.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most queries of all wordings together.")] = 2000,
    write: Annotated[
        bool, typer.Option("--write", help="Write the best template and class texts into the job file.")
    ] = False,
    send_labels: options.SendLabels = False,
    json: options.Json = False,
) -> None:
    """Compare templates and class texts for a job on its training examples, without tuning. Test examples are not used.

    Example: fedbbpt wordings job.toml --write
    """
    log_to_stderr(logging.WARNING)
    job = _without_readout(changes.apply(read_job(job_file)))
    with progress("reading the data"):
        splits = prepare(job)
    data = splits.pooled()
    with progress("loading the model"):
        opened = open_job(splits.job, service, model, send_labels=send_labels)
    with opened as ptm:
        own = _own(template or [], classes or [], file, splits)
        listed = [task_spec(splits.job.with_columns(())), *own]
        if not own_only:
            listed += _built_in(kind, ptm.describe(), splits)
        found = compare_wordings(ptm, listed, data, room=splits.job.prompt_tokens(), limit=limit, seed=job.run.seed)
    best = found.tried[0].wording
    if write:
        _write(job_file, best, splits.job.task.labels)
    if json:
        show(_record(found, splits.job.task.labels), as_json=True)
        return
    _print(found, listed[0])
    if write:
        out.print(f"wrote the first line's template and class texts into {job_file}", style="dim")


def _without_readout(job: Job) -> Job:
    """The job with the class texts as its only columns: wordings are compared by what these tell."""
    return job.model_copy(update={"task": job.task.model_copy(update={"columns": (), "views": ()})})


def _built_in(kind: str, card: ModelCard, splits: Splits) -> tuple[TaskSpec, ...]:
    labels, pairs = splits.job.task.labels, splits.test.examples.pairs is not None
    return built_in(kind or guess_kind(labels, pairs=pairs), find_form(card.family), labels, pairs=pairs)


def _own(templates: Sequence[str], classes: Sequence[str], file: Path | None, splits: Splits) -> list[TaskSpec]:
    """Returns the caller's templates with the caller's class texts; what is not given is taken from the job."""
    sets = [tuple(part.strip() for part in one.split(",")) for one in classes]
    if file is not None:
        read_templates, read_sets = _read(file)
        templates, sets = [*templates, *read_templates], [*sets, *read_sets]
    if not templates and not sets:
        return []
    base, labels = task_spec(splits.job.with_columns(())), splits.job.task.labels
    for one in sets:
        if len(one) != len(labels):
            fix = f"one text for each of the labels {', '.join(labels)}"
            raise InvalidInput(f"{len(one)} class texts ({', '.join(one)})", where="--classes", fix=fix)
    return [TaskSpec(*both) for both in product(templates or [base.template], sets or [base.classes])]


def _read(path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    fix = 'a TOML file such as: templates = ["{prompt} {text} It was {mask}"] and classes = [["bad", "good"]]'
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(reason(error), where=str(path), fix=fix) from None
    if unknown := sorted(table.keys() - {"templates", "classes"}):
        raise InvalidInput(f"unknown key {unknown[0]!r}", where=str(path), fix=fix)
    templates, sets = table.get("templates", []), table.get("classes", [])
    if not _are_texts(templates) or not isinstance(sets, list) or not all(map(_are_texts, sets)):
        raise InvalidInput("not lists of texts", where=str(path), fix=fix)
    return templates, [tuple(one) for one in sets]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _write(path: Path, best: TaskSpec, labels: Sequence[str]) -> None:
    text = with_wording(path.read_text(encoding="utf-8"), best.template, labels, best.classes)
    parse_job(text, str(path))  # a file that no command reads is not written
    atomic_write(path, text)


def _record(found: WordingComparison, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "labels": list(labels),
        "examples": found.examples,
        "queries": found.queries,
        "wordings": [
            {
                "template": one.wording.template,
                "classes": list(one.wording.classes),
                "accuracy": one.measured.accuracy,
                "loss": one.measured.loss,
                "accuracy_fitted": one.fitted,
                "queries": one.measured.examples,
            }
            for one in found.tried
        ],
        "refused": [
            {"template": one.wording.template, "classes": list(one.wording.classes), "reason": one.reason}
            for one in found.refused
        ],
    }


def _print(found: WordingComparison, jobs_own: TaskSpec) -> None:
    table = Table(box=None, header_style="dim")
    for name in ("with offsets", "zero-shot", "loss", "queries"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("template", "classes"):
        table.add_column(name)
    for one in found.tried:
        mark = " (the job's)" if one.wording == jobs_own else ""
        table.add_row(*_figures(one), f"{one.wording.template!r}{mark}", ", ".join(one.wording.classes))
    out.print(table)
    for why, count in _reasons(found).items():
        out.print(f"left out {count}, which the model cannot score: {why}", style="dim", soft_wrap=True)
    error = 1 / (2 * found.examples**0.5)
    lines = (
        f"{found.queries:,} queries: {found.examples} training examples for each of {len(found.tried)} wordings; the "
        f"standard error of an accuracy is at most {100 * error:.0f} points.",
        "With offsets: one offset for each class, fitted on four fifths of the examples and measured on the others, in "
        "turns.",
        "The first line is the best of many on these examples, so expect less of it on others: "
        "`fedbbpt evaluate --job` measures the test examples.",
    )
    for line in lines:
        out.print(line, style="dim", soft_wrap=True)


def _figures(one: Tried) -> list[str]:
    accuracy, loss = one.measured.accuracy, one.measured.loss
    shares = ["-" if share is None else f"{share:.3f}" for share in (one.fitted, accuracy, loss)]
    return [*shares, f"{one.measured.examples:,}"]


def _reasons(found: WordingComparison) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for one in found.refused:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    return reasons
