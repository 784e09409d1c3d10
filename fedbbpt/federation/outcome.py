"""What a run leaves in its folder: the prompt, a summary, and a line of metrics for each round."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.federation.evaluation import Comparison
from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.types import ModelCard, Report, Result

SUMMARY, METRICS, PROMPT, STORE = "summary.json", "metrics.jsonl", "prompt.safetensors", "run.db"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run, measured. The job's task is complete."""

    job: Job
    ptm: ModelCard
    examples: int
    result: Result
    reports: tuple[Report, ...]
    comparison: Comparison
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Flat, for people and scripts. None is what nobody counted, or what the PTM does not let one know."""
        compared = self.comparison
        return {
            "method": self.job.method.name,
            "ptm": self.ptm.model,
            "ptm_revision": self.ptm.revision,
            "task": Path(self.job.data.source).name,
            "seed": self.job.run.seed,
            "rounds": self.job.run.rounds,
            "best_round": self.result.measured.round,
            "clients": self.job.cohort.clients,
            "examples": self.examples,
            "accuracy_before": compared.without.accuracy,
            "accuracy_start": compared.start.accuracy,
            "accuracy_bias_only": compared.bias and compared.bias.accuracy,
            "accuracy_after": compared.tuned.accuracy,
            "loss_before": compared.without.loss,
            "loss_after": compared.tuned.loss,
            "dev_accuracy": self.result.measured.dev_accuracy,
            "queries": sum(report.queries for report in self.reports),
            "queries_evaluation": compared.queries,
            "bytes_up_per_client_round": self._per_client_round([report.bytes_up for report in self.reports]),
            "bytes_down_per_client_round": self._per_client_round([report.bytes_down for report in self.reports]),
            "seconds": round(self.seconds, 3),
        }

    def _per_client_round(self, counts: Sequence[int | None]) -> int | None:
        answers = sum(report.clients for report in self.reports)
        known = [count for count in counts if count is not None]
        return round(sum(known) / answers) if len(known) == len(counts) and answers else None

    def card(self) -> PromptCard:
        queries = sum(report.queries for report in self.reports)
        return prompt_card(self.job, self.job.ptm.model, self.ptm.revision, self.examples, self.result, queries)

    def write(self, folder: Path) -> None:
        write_prompt(folder / PROMPT, self.result.z, self.card())
        lines = [json.dumps(dataclasses.asdict(report)) for report in self.reports]
        (folder / METRICS).write_text("\n".join(lines) + "\n")
        (folder / SUMMARY).write_text(json.dumps(self.summary(), indent=2) + "\n")


def prompt_card(job: Job, ptm: str, revision: str, examples: int, result: Result, queries: int) -> PromptCard:
    task, measured = task_spec(job), result.measured
    return PromptCard(
        run=job.run.name,
        method=job.method.name,
        ptm=ptm,
        ptm_revision=revision,
        ptm_precision=job.ptm.precision,
        template=task.template,
        labels=job.task.labels,
        classes=task.classes,
        space=job.space(),
        seed=job.run.seed,
        rounds=job.run.rounds,
        best_round=measured.round,
        clients=job.cohort.clients,
        examples=examples,
        queries=queries,
        dev_loss=measured.dev_loss,
        dev_accuracy=measured.dev_accuracy,
    )
