"""The sink MLflow: a run of an experiment, at a tracking server or in a database."""

import os
import time
from collections.abc import Mapping
from typing import Any

# The library repeats a request for minutes before it fails, and the end of a run would wait for it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# Nothing about this process goes to the authors of the package.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fedbbpt.sinks import figures
from fedbbpt.sinks.sink import Begun
from fedbbpt.types import Report, RunEvent

KEY_TAG = "fedbbpt.key"
MAX_PARAM = 6000
"""The longest value of a parameter that MLflow takes, in characters."""
PARAMS_PER_CALL = 100
MAX_EVENTS = 200
"""Events that are kept: MLflow has no list of events, so they are one text, which is written anew."""


class Mlflow:
    """A `sink.Sink`: parameters, a metric for each key of metrics.jsonl, the summary as `summary.` metrics."""

    def __init__(self, uri: str, experiment: str) -> None:
        """
        Args:
            uri: The tracking URI.
            experiment: The name of the experiment, which is created if it does not exist.
        """
        self._uri, self._experiment = uri, experiment
        self._client: MlflowClient | None = None
        self._run = ""
        self._told: set[int] = set()
        self._events: list[str] = []

    @property
    def _mlflow(self) -> MlflowClient:
        if self._client is None:
            self._client = MlflowClient(self._uri)
        return self._client

    def begin(self, run: Begun) -> None:
        client, found = self._mlflow, self._mlflow.get_experiment_by_name(self._experiment)
        number = self._created(self._experiment) if found is None else found.experiment_id
        earlier = client.search_runs([number], f"tags.`{KEY_TAG}` = '{run.key}'", max_results=1)
        if earlier:
            self._run = earlier[0].info.run_id
            history = client.get_metric_history(self._run, "queries")
            self._told = {metric.step for metric in history}
            client.update_run(self._run, status="RUNNING")
            return
        tags = {KEY_TAG: run.key, "fedbbpt.run_id": run.run_id}
        self._run = client.create_run(number, run_name=run.name, tags=tags).info.run_id
        params = [Param(key, str(value)[:MAX_PARAM]) for key, value in run.settings.items()]
        for start in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(self._run, params=params[start : start + PARAMS_PER_CALL])

    def _created(self, name: str) -> str:
        try:
            return str(self._mlflow.create_experiment(name))
        except MlflowException:  # another run has created it meanwhile, or there is a reason that `begin` meets again
            found = self._mlflow.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def round(self, report: Report) -> None:
        if report.round in self._told:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, report.round) for key, value in figures.of_report(report).items()]
        self._mlflow.log_batch(self._run, metrics=metrics)
        self._told.add(report.round)

    def event(self, event: RunEvent) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.time))
        line = f"{stamp} {figures.of_event(event)}"
        if line not in self._events:  # a call that failed is repeated
            self._events = [*self._events, line][-MAX_EVENTS:]
        self._mlflow.log_batch(self._run, tags=[RunTag("mlflow.note.content", "\n\n".join(self._events))])

    def end(self, summary: Mapping[str, Any]) -> None:
        now, last = int(time.time() * 1000), max(self._told, default=0)
        numbers = figures.of_summary(summary).items()
        self._mlflow.log_batch(
            self._run, metrics=[Metric(f"summary.{key}", value, now, last) for key, value in numbers]
        )
        self._mlflow.set_terminated(self._run, "FINISHED")

    def close(self) -> None:
        pass
