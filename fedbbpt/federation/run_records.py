"""What a coordinator leaves in the folder of a run for people and scripts: metrics round by round, then the result."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.errors import NoResultYet
from fedbbpt.federation.privacy_statement import statement
from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.federation.run_folder import (
    METRICS,
    PROMPT,
    SUMMARY,
    metrics_line,
    of_privacy,
    per_client_round,
    prompt_card,
)
from fedbbpt.host.files import atomic_write
from fedbbpt.host.json_text import json_text
from fedbbpt.job.config import Job
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.sinks.run_log import RunLog
from fedbbpt.types import OWNER, PrecisionChoice, PtmIdentity, Report, Result

log = logging.getLogger(__name__)


class MetricsFile:
    """metrics.jsonl, a line for each closed round.

    The first call writes the whole file, so that what an earlier process left of it has neither gaps nor doubles.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._written = folder / METRICS, -1

    def write(self, reports: Callable[[int], Sequence[Report]]) -> None:
        """Brings the file up to date. `reports` returns those from a round on. Raises OSError."""
        written = max(0, self._written)
        news = reports(written)
        lines = "".join(map(metrics_line, news))
        if self._written < 0:
            atomic_write(self._path, lines)
        elif news:
            self._written = -1  # if this fails, the file may have a part of the lines
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        self._written = written + len(news)


class RunRecords:
    """The records of one run. A full disk never ends the run: what could not be written is written later."""

    def __init__(self, folder: Path, job: Job) -> None:
        """
        Args:
            folder: The folder to write to.
            job: The run's job, with its task complete.

        Raises InvalidInput if a tool of the job's `[log]` is not installed.
        """
        self._folder, self._job = folder, job
        self._log = RunLog(job, folder)
        self._metrics, self._summarised = MetricsFile(folder), False

    def follow(self, coordinator: Coordinator) -> None:
        """Writes what has happened since the last call."""
        self._log.follow(coordinator.settings.run_id, coordinator.reports, coordinator.events.since)
        try:
            self._metrics.write(coordinator.reports)
            if coordinator.state.ended and not self._summarised:
                self._write_result(coordinator)
                self._summarised = True
        except OSError as error:
            log.warning("%s: not written, the run goes on: %s", self._folder, error)

    def close(self) -> None:
        """Lets the tools take what they have not taken yet, for a few seconds."""
        self._log.close()

    def _write_result(self, coordinator: Coordinator) -> None:
        try:
            result = coordinator.result()
        except NoResultYet as error:
            log.warning("%s", error)
            return
        path = self._folder / PROMPT
        card = card_of(self._job, coordinator)
        write_prompt(path, result.z, card)
        summary = _summary(self._job, card, coordinator, result)
        self._log.end(summary)
        atomic_write(self._folder / SUMMARY, json_text(summary, indent=2) + "\n")
        log.info("the prompt is in %s", path)


def card_of(job: Job, coordinator: Coordinator) -> PromptCard:
    """Returns the card of a run's best prompt so far, with what its clients' PTM says of itself.

    Before any client has said it, it names the job's model and the revision that the run pins. Raises NoResultYet.
    """
    status, settings = coordinator.status(), coordinator.settings
    owner = OWNER if job.definition().owner_takes_part(job.method) else None
    examples = sum(member.examples for member in coordinator.members() if member.client_id != owner)
    precision = "" if job.ptm.precision is PrecisionChoice.AUTO else job.ptm.precision
    ptm = coordinator.ptm or PtmIdentity(job.ptm.model, settings.ptm_revision, precision)
    spent = None if status.privacy is None else status.privacy.epsilon
    return prompt_card(job, ptm, examples, coordinator.result(), status.queries, statement(job.privacy, spent))


def _summary(job: Job, card: PromptCard, coordinator: Coordinator, result: Result) -> dict[str, Any]:
    """Returns a run's figures without those on test examples, which a coordinator does not have."""
    reports, status = coordinator.reports(0), coordinator.status()
    return {
        "tested": False,
        "run": status.run_id,
        "state": status.state,
        "method": card.method,
        "ptm": card.ptm,
        "ptm_revision": card.ptm_revision,
        "seed": card.seed,
        "rounds": status.rounds,
        "best_round": card.best_round,
        "clients": job.cohort.clients,
        "examples": card.examples,
        "dev_loss": result.measured.dev_loss,
        "dev_accuracy": result.measured.dev_accuracy,
        "queries": status.queries,
        "bytes_up_per_client_round": per_client_round(reports, [report.bytes_up for report in reports]),
        "bytes_down_per_client_round": per_client_round(reports, [report.bytes_down for report in reports]),
        "seconds": round(sum(report.seconds for report in reports), 3),
        **of_privacy(card.privacy),
    }
