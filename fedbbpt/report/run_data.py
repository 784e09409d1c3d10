"""What the page of a run shows: the files of its folder, read once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import FedbbptError, InvalidInput, reason
from fedbbpt.federation.prompt_file import PromptCard, read_prompt
from fedbbpt.federation.run_folder import ANSWERS, JOB, METRICS, PROMPT, SUMMARY, FinishedRun, answer_rows, digest_of
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.job_file import job_text
from fedbbpt.types import ExampleKind, LabelledExamples, Report


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run."""

    summary: Mapping[str, Any]
    """summary.json."""
    reports: Sequence[Report]
    """metrics.jsonl."""
    answers: Sequence[Mapping[str, str | None]]
    """test_answers.jsonl; empty if the run has none."""
    card: PromptCard
    z: npt.NDArray[np.float32]
    job: Job | None = None
    job_toml: str = ""
    inputs: Sequence[str] = ()
    """The test examples' texts; empty if the data is not at hand."""
    inputs_missing: str = ""
    """Why there are no texts."""
    words: Sequence[Sequence[str]] = field(default=())
    """For each vector of a soft prompt, the words whose vectors are the nearest; empty if nobody has looked."""

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes."""
        return self.card.labels

    @staticmethod
    def of_finished(run: FinishedRun) -> "RunData":
        """Returns the data of a run in this process, without texts."""
        answers = answer_rows(run.comparison, run.job.task.labels)
        return RunData(
            run.summary(),
            run.reports,
            answers,
            run.card(),
            run.result.z,
            run.job,
            job_text(run.job),
            inputs_missing="they are not kept in memory",
        )

    @staticmethod
    def of_folder(folder: Path, *, texts: bool = True) -> "RunData":
        """Reads the folder of a finished run, and the texts of its test examples if its data is still there.

        Args:
            folder: The folder that `fedbbpt run`, `simulate` or a coordinator left.
            texts: Whether to read the texts.

        Raises:
            InvalidInput: It is not the folder of a finished run.
        """
        fix = "the folder of a finished run, as `fedbbpt run` or `simulate` leaves it"
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            reports = [Report(**json.loads(line)) for line in _lines(folder / METRICS)]
            answers = [json.loads(line) for line in _lines(folder / ANSWERS)] if (folder / ANSWERS).exists() else []
            if not isinstance(summary, dict) or not all(isinstance(row, dict) for row in answers):
                raise ValueError("not a JSON object")
        except FileNotFoundError as error:
            what = f"{Path(error.filename).name} is missing: the run has not ended, or this is another folder"
            raise InvalidInput(what, where=str(folder), fix=fix) from None
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"its files cannot be read: {reason(error)}", where=str(folder), fix=fix) from None
        z, card = read_prompt(folder / PROMPT)
        _check(summary, answers, card, folder)
        job, toml = None, ""
        if (folder / JOB).exists():
            job, toml = read_job(folder / JOB), (folder / JOB).read_text(encoding="utf-8")
        inputs, missing = (
            ((), "the page was asked for without them")
            if not texts
            else _inputs(job, answers, summary.get("test_digest"))
        )
        return RunData(summary, reports, answers, card, z, job, toml, inputs, missing)


_KEYS = ("best_round", "queries", "bytes_up_per_client_round", "bytes_down_per_client_round", "seconds")
_TESTED_KEYS = (
    "accuracy_before",
    "accuracy_after",
    "loss_before",
    "loss_after",
    "test_examples",
    "intervals_95",
    "gains",
)


def _check(
    summary: Mapping[str, Any], answers: Sequence[Mapping[str, str | None]], card: PromptCard, folder: Path
) -> None:
    """Raises InvalidInput if the files are not those of one run, or of another version."""
    wanted = (*_KEYS, *(_TESTED_KEYS if summary.get("tested") else ()))
    if missing := [key for key in wanted if key not in summary]:
        what = f"it has no {missing[0]!r}; another version may have written it"
        raise InvalidInput(what, where=str(folder / SUMMARY), fix="a run of this version")
    known = {*card.labels, None}
    for place, row in enumerate(answers, start=1):
        if not {"label", "result", "no_prompt"} <= row.keys() or not known.issuperset(row.values()):
            what = "not an answer to an example of this run"
            raise InvalidInput(what, where=f"{folder / ANSWERS}:{place}", fix="the file that the run has written")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _inputs(
    job: Job | None, answers: Sequence[Mapping[str, str | None]], expected: str | None
) -> tuple[tuple[str, ...], str]:
    """Returns the texts of the test examples, or why there are none."""
    if not answers:
        return (), "the run has left no answers to test examples"
    if job is None:
        return (), "the folder holds no job, which would say where the data is"
    try:
        test = prepare(job).test
    except FedbbptError as error:
        return (), f"the data cannot be read: {error}"
    if digest_of(test) != expected:
        return (), "the data has changed since the run"
    return _texts(test), ""


def _texts(data: LabelledExamples) -> tuple[str, ...]:
    if data.examples.kind is ExampleKind.IMAGES:
        return tuple(f"image {place}" for place in range(len(data)))
    return tuple(f"{text}\n{second}" if second else text for text, second in data.examples.text_pairs)
