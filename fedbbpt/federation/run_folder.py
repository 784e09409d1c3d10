"""The folder of a run: the names of its files, and the results that a finished run leaves in it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from fedbbpt.client.asking import Progress
from fedbbpt.data.quality import DataWarning
from fedbbpt.errors import StoreMismatch
from fedbbpt.federation.comparison import Comparison, Data, compare
from fedbbpt.federation.evaluation import Gain
from fedbbpt.federation.privacy_statement import PrivacyStatement, statement
from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.federation.splits import Splits
from fedbbpt.host.files import atomic_write
from fedbbpt.host.json_text import json_text
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.settings import task_spec
from fedbbpt.methods.fed_readout import FedReadoutConfig
from fedbbpt.types import LabelledExamples, ModelCard, PrecisionChoice, PtmIdentity, Report, Result
from fedbbpt.types.digests import digest
from fedbbpt.types.examples import concatenate

SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
"""A line of JSON for each round."""
ANSWERS = "test_answers.jsonl"
"""A line of JSON for each test example: its label, and the label that each condition gave it."""
ACCURACIES = {
    "no_prompt": "accuracy_before",
    "offsets": "accuracy_bias_only",
    "readout": "accuracy_readout_only",
    "start": "accuracy_start",
    "prompt": "accuracy_prompt_only",
    "result": "accuracy_after",
}
"""The key of the summary for the accuracy of each condition of `Comparison.conditions`."""
PROMPT = "prompt.safetensors"
STORE = "run.db"
"""The coordinator's database."""
BACKUPS = "backups"
"""The folder of copies of the database."""
JOB = "job.toml"
"""The job that the coordinator of the run received, with its task and its precision decided."""
AUXILIARY = "auxiliary.safetensors"
"""The model that clients of fed-sp train."""


def prepare_folder(folder: Path) -> None:
    """Creates the folder of a run, or accepts that of an unfinished run, which then continues.

    Raises:
        StoreMismatch: It is a file; or the folder holds a finished run, which is never overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreMismatch("is a file", where=str(folder), fix="the name of a folder as --out")
    if _finished(folder / SUMMARY):
        raise StoreMismatch("holds a finished run", where=str(folder), fix="another --out")
    folder.mkdir(parents=True, exist_ok=True)


def _finished(summary: Path) -> bool:
    """Returns whether the summary is that of a finished run, and not its coordinator's, which has no test examples."""
    try:
        return json.loads(summary.read_text(encoding="utf-8")).get("tested") is not False
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True  # never overwritten, whatever it is


def with_recorded_precision(job: Job, folder: Path) -> Job:
    """Returns the job with the precision of the unfinished run in the folder, if the job leaves it to a measurement.

    A measurement on another day, or on another machine, may choose otherwise, and a run has one precision.
    """
    path = folder / JOB
    if job.ptm.precision is not PrecisionChoice.AUTO or job.ptm.address or not path.exists():
        return job
    return with_precision(job, read_job(path, [job.definition()]).ptm.precision)


def with_precision(job: Job, precision: str) -> Job:
    """Returns the job with a precision, except with "" or with a running service: their precision is not the job's."""
    if not precision or job.ptm.address:
        return job
    ptm = job.ptm.model_copy(update={"precision": PrecisionChoice(precision)})
    return job.model_copy(update={"ptm": ptm})


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run and the measurements of its prompt on test examples."""

    job: Job
    """The job, with its task complete."""
    ptm: ModelCard
    examples: int
    """Training examples of all clients together."""
    result: Result
    reports: tuple[Report, ...]
    comparison: Comparison
    seconds: float
    warnings: tuple[DataWarning, ...] = ()
    """What its owner should look at in the data."""
    test_digest: str = ""
    """`digest_of` the test examples."""

    def summary(self) -> dict[str, Any]:
        """Returns the run's figures and warnings. None stands for a figure that could not be measured."""
        compared = self.comparison
        return {
            "tested": True,
            "method": self.job.method.name,
            "ptm": self.ptm.model,
            "ptm_revision": self.ptm.revision,
            "task": Path(self.job.data.source).name,
            "test_digest": self.test_digest,
            "seed": self.job.run.seed,
            "rounds": self.job.run.rounds,
            "best_round": self.result.measured.round,
            "clients": self.job.cohort.clients,
            "examples": self.examples,
            **accuracies_record(compared),
            **gains_record(compared),
            "loss_before": compared.without.loss,
            "loss_after": compared.tuned.loss,
            "dev_accuracy": self.result.measured.dev_accuracy,
            "queries": sum(report.queries for report in self.reports),
            "queries_evaluation": compared.queries,
            "bytes_up_per_client_round": per_client_round(self.reports, [one.bytes_up for one in self.reports]),
            "bytes_down_per_client_round": per_client_round(self.reports, [one.bytes_down for one in self.reports]),
            "seconds": round(self.seconds, 3),
            **of_privacy(self._privacy),
            "warnings": [dataclasses.asdict(warning) for warning in self.warnings],
        }

    def card(self) -> PromptCard:
        """Returns the card of the run's prompt."""
        queries = sum(report.queries for report in self.reports)
        ptm = PtmIdentity(self.ptm.model, self.ptm.revision, self.ptm.precision)
        return prompt_card(self.job, ptm, self.examples, self.result, queries, self._privacy)

    @property
    def _privacy(self) -> PrivacyStatement | None:
        return statement(self.job.privacy, self.reports[-1].epsilon if self.reports else None)

    def write(self, path: str | PathLike[str]) -> None:
        """Writes the prompt, the metrics, the answers and, last, the summary, which marks the run as finished."""
        folder = Path(path)
        write_prompt(folder / PROMPT, self.result.z, self.card())
        atomic_write(folder / METRICS, "".join(map(metrics_line, self.reports)))
        if rows := answer_rows(self.comparison, self.job.task.labels):
            atomic_write(folder / ANSWERS, "".join(json_text(row) + "\n" for row in rows))
        atomic_write(folder / SUMMARY, json_text(self.summary(), indent=2) + "\n")


def of_privacy(stated: PrivacyStatement | None) -> dict[str, Any]:
    """Returns the entry of a summary about privacy; none for a run without noise."""
    return {} if stated is None else {"privacy": stated.model_dump()}


def answer_rows(compared: Comparison, labels: Sequence[str]) -> list[dict[str, str | None]]:
    """Returns for each test example its label, and the label that each condition gave it, by the condition's name.

    There are none if the PTM gives losses only.
    """
    answers = {name: one.answers for name, one in compared.conditions.items() if one.answers is not None}
    if "result" not in answers:
        return []
    named = {name: [labels[k] if k >= 0 else None for k in found.predicted] for name, found in answers.items()}
    truth = [labels[k] for k in answers["result"].labels]
    return [
        {"label": label, **dict(zip(named, given, strict=True))}
        for label, *given in zip(truth, *named.values(), strict=True)
    ]


def accuracies_record(compared: Comparison) -> dict[str, float | None]:
    """Returns the entries of a summary about accuracies. None stands for one that was not measured."""
    measured = compared.conditions
    return {key: measured[name].accuracy if name in measured else None for name, key in ACCURACIES.items()}


def gains_record(compared: Comparison) -> dict[str, Any]:
    """Returns the entries of a summary about the intervals of accuracies, and about what the result gains."""
    return {
        "test_examples": compared.tuned.examples,
        "intervals_95": {name: _pair(measured.interval) for name, measured in compared.conditions.items()},
        "gains": {name: gain and gain_record(gain) for name, gain in compared.gains.items()},
    }


def gain_record(gain: Gain) -> dict[str, Any]:
    """Returns the figures of one gain for JSON."""
    return {
        "difference": gain.difference,
        "interval_95": _pair(gain.interval),
        "examples": gain.examples,
        "only_result_right": gain.only_this,
        "only_other_right": gain.only_other,
    }


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def metrics_line(report: Report) -> str:
    """Returns the line of a round in metrics.jsonl."""
    return json_text(dataclasses.asdict(report)) + "\n"


def per_client_round(reports: Sequence[Report], counts: Sequence[int | None]) -> int | None:
    """Returns the bytes of all rounds divided by the number of answers; None if a round's were not counted."""
    answers = sum(report.clients for report in reports)
    known = [count for count in counts if count is not None]
    return round(sum(known) / answers) if len(known) == len(counts) and answers else None


def finish_run(
    splits: Splits,
    ptm: Ptm,
    result: Result,
    reports: tuple[Report, ...],
    seconds: float,
    progress: Progress = lambda queries: None,
    warnings: Sequence[DataWarning] = (),
) -> FinishedRun:
    """Measures a run's prompt and its baselines on the test examples, and returns the finished run.

    Args:
        splits: The run's job, with its task complete, and its data.
        ptm: The model to query.
        result: The run's best prompt.
        reports: The report of each round.
        seconds: How long the run took.
        progress: Receives the number of queries answered since it was last called.
        warnings: The warnings about the run's data, of `federation.run_warnings`.
    """
    job, data = splits.job, compared_data(splits)
    comparison = compare(
        ptm,
        task_spec(job),
        job.space(),
        result.z,
        data,
        ridges=job.method.readout.ridges,
        progress=progress,
    )
    return FinishedRun(
        job,
        ptm.describe(),
        len(data.train),
        result,
        reports,
        comparison,
        seconds,
        tuple(warnings),
        digest_of(data.test),
    )


def digest_of(data: LabelledExamples) -> str:
    """Returns a digest of examples and their labels, in hexadecimal."""
    return digest(*data.examples.digests(), data.labels.tobytes()).hex()


def compared_data(splits: Splits) -> Data:
    """Returns the examples on which a run's prompt and its baselines are measured."""
    method = splits.job.method
    refit = isinstance(method, FedReadoutConfig) and method.refit
    return Data(splits.pooled(), concatenate(splits.dev), splits.test, refit)


def prompt_card(
    job: Job,
    ptm: PtmIdentity,
    examples: int,
    result: Result,
    queries: int,
    privacy: PrivacyStatement | None = None,
) -> PromptCard:
    """Returns the card of a job's prompt.

    Args:
        job: The job, with its task complete.
        ptm: What the PTM says of itself.
        examples: Training examples of all clients together.
        result: The prompt and its measurement on dev examples.
        queries: Queries of the whole run.
        privacy: What the run has spent of its privacy budget, if it has one.
    """
    task, measured = task_spec(job), result.measured
    return PromptCard(
        run=job.run.name,
        method=job.method.name,
        # A service tells the name of its model's folder only, where the job has the path from which it can be loaded.
        ptm=job.ptm.model if Path(job.ptm.model).name == Path(ptm.model).name else ptm.model,
        ptm_revision=ptm.revision,
        ptm_precision=ptm.precision,
        ptm_family=job.ptm.family,
        ptm_max_length=job.ptm.max_length,
        template=task.template,
        labels=job.task.labels,
        classes=task.classes[: len(job.task.labels)],
        columns=job.columns(),
        space=job.space(),
        seed=job.run.seed,
        rounds=job.run.rounds,
        best_round=measured.round,
        clients=job.cohort.clients,
        examples=examples,
        queries=queries,
        dev_loss=measured.dev_loss,
        dev_accuracy=measured.dev_accuracy,
        privacy=privacy,
    )
