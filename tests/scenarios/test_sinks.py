"""All sinks show a run alike, in the real formats and at real servers of their tools."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.job.log_section import LogSection
from fedbbpt.sinks import figures
from fedbbpt.sinks.opening import sinks_of
from fedbbpt.sinks.sink import Begun, Sink
from tests.otlp_collector import Collector, attributes, collector
from tests.sinks import BEGUN, EVENT, EVENT_TEXT, REPORTS, SUMMARY
from tests.wandb_files import records

pytestmark = pytest.mark.filterwarnings("default")  # those of the tools' own packages


class Backend(ABC):
    """The tool behind a sink, as a test reads it."""

    section: LogSection
    texts = True
    """Whether the tool shows events as texts."""

    @abstractmethod
    def curve(self, key: str) -> dict[int, float]:
        """Returns the values of a key of metrics.jsonl by round."""

    @abstractmethod
    def summary(self, key: str) -> float:
        """Returns a number of the run's summary."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Returns the job's keys with their values as texts."""

    @abstractmethod
    def events(self) -> list[str]:
        """Returns the texts of the events."""


class TensorBoardFiles(Backend):
    """The files of TensorBoard, read by TensorBoard's own reader."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.section = folder, LogSection(tensorboard="logs")

    def _read(self) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (run,) = (self._folder / "logs").iterdir()
        assert run.name == "tiny-5eed5eed"
        found = EventAccumulator(str(run), size_guidance={"tensors": 0, "scalars": 0})
        found.Reload()
        return found

    def curve(self, key: str) -> dict[int, float]:
        found = self._read()
        if f"round/{key}" not in found.Tags()["scalars"]:
            return {}
        return {event.step: event.value for event in found.Scalars(f"round/{key}")}

    def summary(self, key: str) -> float:
        (event,) = self._read().Scalars(f"summary/{key}")
        return float(event.value)

    def _texts(self, tag: str) -> list[str]:
        events = self._read().Tensors(f"{tag}/text_summary")
        return [event.tensor_proto.string_val[0].decode() for event in events]

    def settings(self) -> dict[str, str]:
        (text,) = self._texts("settings")
        rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
        values = {key: json.loads(value.strip("`")) for key, value in rows}
        return {key: str(value) for key, value in values.items()}

    def events(self) -> list[str]:
        return self._texts("events")


class MlflowDatabase(Backend):
    """MLflow's tracking store, in a database or behind its server, read by MLflow's client."""

    def __init__(self, uri: str) -> None:
        self._uri, self.section = uri, LogSection(mlflow=uri, mlflow_experiment="tests")

    def _run(self) -> Any:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self._uri)
        experiment = self._client.get_experiment_by_name("tests")
        assert experiment is not None
        (run,) = self._client.search_runs([experiment.experiment_id])
        assert run.info.run_name == "tiny"
        return run

    def curve(self, key: str) -> dict[int, float]:
        history = self._run() and self._client.get_metric_history(self._run().info.run_id, key)
        assert len({metric.step for metric in history}) == len(history)
        return {metric.step: metric.value for metric in history}

    def summary(self, key: str) -> float:
        assert self._run().info.status == "FINISHED"
        return float(self._run().data.metrics[f"summary.{key}"])

    def settings(self) -> dict[str, str]:
        return dict(self._run().data.params)

    def events(self) -> list[str]:
        note = self._run().data.tags["mlflow.note.content"]
        return [line.partition(" ")[2] for line in note.split("\n\n")]


class WandbFiles(Backend):
    """The files of an offline run of W&B, which `wandb sync` would send."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.section = folder, LogSection(wandb="project", wandb_mode="offline")

    def _records(self) -> Iterator[Any]:
        newest = max(self._folder.glob("wandb/offline-run-*/*.wandb"))  # their names begin with the time
        until(lambda: any(record.HasField("exit") for record in records(newest)))  # another process writes the file
        return records(newest)

    def curve(self, key: str) -> dict[int, float]:
        found = {}
        for record in self._records():
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if key in items:
                found[int(items["_step"])] = float(items[key])
        return found

    def _summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for record in self._records():
            for item in record.summary.update:
                found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        return found

    def summary(self, key: str) -> float:
        return float(self._summary()[f"summary/{key}"])

    def settings(self) -> dict[str, str]:
        (run,) = (record.run for record in self._records() if record.HasField("run"))
        assert (run.run_id, run.display_name, run.project) == ("5eed5eed", "tiny", "project")
        values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
        return {key: str(value) for key, value in values.items()}

    def events(self) -> list[str]:
        return list(self._summary()["events"])


def until(holds: Callable[[], bool]) -> None:
    """Waits until a condition holds, at most a minute."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class OtlpCollector(Backend):
    """A collector that parses OTLP."""

    def __init__(self, found: Collector) -> None:
        self._found, self.section = found, LogSection(otlp=found.url)

    def curve(self, key: str) -> dict[int, float]:
        # A gauge has no step: each export says the round beside the figures, and repeats those of earlier rounds.
        curve, step = dict[int, float](), -1
        for name, value in self._found.metrics:
            if name == "fedbbpt.round.round":
                step = int(value)
            elif name == f"fedbbpt.round.{key}":
                curve.setdefault(step, value)
        return curve

    def summary(self, key: str) -> float:
        return self._found.values(f"fedbbpt.summary.{key}")[-1]

    def settings(self) -> dict[str, str]:
        resource, prefix = self._found.resources[0], "fedbbpt.job."
        return {key.removeprefix(prefix): value for key, value in resource.items() if key.startswith(prefix)}

    def events(self) -> list[str]:
        return [attributes(span)["event"] for _, span in self._found.spans if span.name == "fedbbpt.event"]


@pytest.fixture(
    params=["tensorboard", "wandb", "otlp", pytest.param("mlflow", marks=pytest.mark.slow)],
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "otlp":
        with collector() as found:
            yield OtlpCollector(found)
    elif request.param == "mlflow":
        yield MlflowDatabase(f"sqlite:///{tmp_path}/mlflow.db")
    else:
        yield {"tensorboard": TensorBoardFiles, "wandb": WandbFiles}[request.param](tmp_path)


def opened(backend: Backend, folder: Path) -> Sink:
    ((name, opens),) = sinks_of(backend.section, folder)
    assert name.startswith("log.")
    return opens()


def tell_all(sink: Sink, begun: Begun = BEGUN) -> None:
    sink.begin(begun)
    for report in REPORTS:
        sink.round(report)
    sink.event(EVENT)
    sink.end(SUMMARY)
    sink.close()


def test_a_run_is_shown_with_the_figures_of_its_own_files(backend: Backend, tmp_path: Path) -> None:
    tell_all(opened(backend, tmp_path))
    for key in ("dev_loss", "train_loss", "dev_accuracy", "queries", "bytes_up"):
        expected = {
            report.round: figures.of_report(report)[key] for report in REPORTS if key in figures.of_report(report)
        }
        curve = backend.curve(key)
        assert {round: curve.get(round) for round in expected} == pytest.approx(expected), key
    assert backend.summary("accuracy_after") == 0.75
    assert backend.summary("privacy.epsilon") == 2.0
    assert backend.settings().items() >= {"run.seed": "7", "method.name": "fed-cma"}.items()
    assert backend.events() == [EVENT_TEXT]


def test_a_run_that_continues_in_another_process_is_shown_once(backend: Backend, tmp_path: Path) -> None:
    first = opened(backend, tmp_path)
    first.begin(BEGUN)
    for report in REPORTS[:2]:
        first.round(report)
    first.close()
    second = time.time() // 1
    until(lambda: time.time() // 1 > second)  # W&B names its folders by the second
    tell_all(opened(backend, tmp_path))
    assert backend.curve("queries").items() >= {0: 60.0, 1: 120.0, 2: 170.0}.items()
    assert backend.summary("rounds") == 2.0


def test_an_interrupted_run_can_be_closed(backend: Backend, tmp_path: Path) -> None:
    opened(backend, tmp_path).close()
    sink = opened(backend, tmp_path)
    sink.begin(BEGUN)
    sink.close()
    assert backend.settings()["run.seed"] == "7" if not isinstance(backend, OtlpCollector) else True


def test_a_collector_that_refuses_is_an_error_and_the_call_can_be_repeated(tmp_path: Path) -> None:
    with collector() as found:
        sink = opened(OtlpCollector(found), tmp_path)
        sink.begin(BEGUN)
        calls: list[Callable[[], None]] = [lambda: sink.round(REPORTS[0]), lambda: sink.event(EVENT)]
        for call in calls:
            found.fails = 1
            with pytest.raises(Exception, match=r"^the collector did not take"):
                call()
            call()
        assert OtlpCollector(found).curve("queries") == {0: 60.0}
        sink.close()
