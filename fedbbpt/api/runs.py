"""Simulates a federation in this process, round by round."""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fedbbpt.api.finished import FinishedRun
from fedbbpt.api.prompts import TunedPrompt
from fedbbpt.api.ptm import open_ptm
from fedbbpt.data.quality import DataWarning
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.privacy_statement import statement
from fedbbpt.federation.run_folder import finish_run, prompt_card
from fedbbpt.federation.run_warnings import data_warnings, model_warnings
from fedbbpt.federation.simulation import RUN_ID, Simulation
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.sinks.run_log import RunLog
from fedbbpt.types import PtmIdentity, Report, Result


class SimulatedRun:
    """A federation in this process. Iterating over it plays the rounds and yields a `Report` for each.

    It calls the same coordinator, clients, codecs and model as `fedbbpt run`, by function instead of over gRPC, and
    ends with the same prompt, bit for bit.
    """

    def __init__(self, splits: Splits, ptm: Ptm, resources: ExitStack) -> None:
        self._splits, self._ptm, self._resources = splits, ptm, resources
        self._simulation = Simulation(splits, ptm)
        self._log = RunLog(splits.job, Path(), secrets.token_hex(4))
        self._follow()
        resources.callback(self._log.close)
        self._rounds = self._simulation.rounds()
        self._reports: list[Report] = []
        self._seconds = 0.0
        self._warnings = (*data_warnings(splits), *model_warnings(splits, ptm))

    def _follow(self) -> None:
        self._log.follow(RUN_ID, self._simulation.reports_since, self._simulation.events_since)

    @property
    def job(self) -> Job:
        """The job, with the labels, classes and candidate words that it leaves to the data."""
        return self._splits.job

    @property
    def splits(self) -> Splits:
        """The examples of each client, of the server, and those to test on."""
        return self._splits

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports of the rounds that were played so far."""
        return tuple(self._reports)

    @property
    def warnings(self) -> tuple[DataWarning, ...]:
        """What to look at in the data: duplicates across splits, texts that are cut, labels that contradict."""
        return self._warnings

    def __iter__(self) -> Iterator[Report]:
        """Plays the remaining rounds. A loop that was left early continues with the next round."""
        while True:
            started = time.monotonic()
            closed = next(self._rounds, None)
            self._seconds += time.monotonic() - started
            if closed is None:
                return
            self._reports.append(closed.report)
            self._follow()
            yield closed.report

    def result(self) -> Result:
        """Returns the best prompt so far, by dev loss. Raises NoResultYet before the first round."""
        return self._simulation.result()

    def prompt(self) -> TunedPrompt:
        """Returns the best prompt so far with its card, to save it or to predict with it. Raises NoResultYet."""
        job, result, card = self.job, self.result(), self._ptm.describe()
        queries = sum(report.queries for report in self._reports)
        examples = len(self._splits.pooled())
        ptm = PtmIdentity(card.model, card.revision, card.precision)
        stated = statement(job.privacy, self._reports[-1].epsilon if self._reports else None)
        return TunedPrompt(result.z, prompt_card(job, ptm, examples, result, queries, stated))

    def finish(self) -> FinishedRun:
        """Plays the remaining rounds, and measures the best prompt and its controls on the test examples.

        Returns:
            The finished run: `comparison` holds the accuracies before and after tuning, `summary()` the figures, and
            `write(folder)` leaves what `fedbbpt simulate` leaves. A notebook shows it with its curves; `plot()` draws
            them with matplotlib, and `report(path)` writes them as a page.
        """
        for _ in self:
            pass
        seconds, warnings = self._seconds, self._warnings
        found = finish_run(self._splits, self._ptm, self.result(), self.reports, seconds, warnings=warnings)
        self._log.end(found.summary())
        return FinishedRun.of(found)

    def close(self) -> None:
        """Closes the tools of `[log]`, and the connection to the PTM service if `simulate` opened one."""
        self._resources.close()

    def __enter__(self) -> "SimulatedRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def simulate(job: Job, ptm: Ptm | None = None) -> SimulatedRun:
    """Reads a job's data, lets its clients join, and returns the run, whose rounds are played as you iterate.

    For example::

        with fedbbpt.simulate(fedbbpt.load_job("job.toml")) as run:
            for report in run:
                print(report.round, report.dev_loss, report.dev_accuracy)
            run.prompt().save("prompt.safetensors")

    Args:
        job: The job. Methods of your own come with it: `load_job(path, methods=[...])`.
        ptm: The model to query; None opens the job's own, by `ptm.address` or by `ptm.model`.

    Raises:
        InvalidData: The data cannot be split as the job says.
        InvalidJob: The job contradicts its data or its model.
        InvalidInput: A path is given in place of a job.
        PtmUnavailable: The service at `ptm.address` does not answer.
    """
    if not isinstance(job, Job):
        raise InvalidInput(f"{job!r} is not a job", where="simulate", fix="load_job(path), or make_job(tables)")
    splits = prepare(job)
    with ExitStack() as resources:
        if ptm is None:
            own = splits.job.ptm
            opened = open_ptm(
                own.model,
                address=own.address,
                revision=own.revision,
                threads=own.threads,
                send_labels=own.send_labels,
                **own.options(),
            )
            ptm = resources.enter_context(opened)
        return SimulatedRun(splits.completed_by(ptm), ptm, resources.pop_all())
