"""The sink OpenTelemetry: figures and events of a run to a collector, as OTLP over HTTP."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from fedbbpt.errors import Unavailable
from fedbbpt.sinks import figures
from fedbbpt.sinks.sink import Begun
from fedbbpt.types import Report, RunEvent
from fedbbpt.wire.collector import EXPORT_SECONDS, collector_session


class Otlp:
    """A `sink.Sink`: a gauge `fedbbpt.round.KEY` for each key of metrics.jsonl, `fedbbpt.summary.KEY` for those of
    summary.json, and a span `fedbbpt.event` for each event.

    Settings are attributes of the resource. Each call exports and awaits the collector's word, so that a failure is
    known.
    """

    def __init__(self, url: str) -> None:
        """Exports to the paths of OTLP under `url`. Headers are those of OTEL_EXPORTER_OTLP_HEADERS."""
        url = url.rstrip("/")
        self._exporter = OTLPMetricExporter(f"{url}/v1/metrics", timeout=EXPORT_SECONDS, session=collector_session(url))
        self._spans = OTLPSpanExporter(f"{url}/v1/traces", timeout=EXPORT_SECONDS, session=collector_session(url))
        self._run = ""

    def begin(self, run: Begun) -> None:
        self._run = run.run_id
        settings = {f"fedbbpt.job.{key}": str(value) for key, value in run.settings.items()}
        resource = Resource.create({"service.name": "fedbbpt", "fedbbpt.run": run.run_id, **settings})
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self._meter = provider.get_meter("fedbbpt")
        self._tracer = TracerProvider(resource=resource, shutdown_on_exit=False).get_tracer("fedbbpt")
        self._gauges: dict[str, Any] = {}

    def round(self, report: Report) -> None:
        self._show("round", {"round": report.round, **figures.of_report(report)})

    def event(self, event: RunEvent) -> None:
        at = int(event.time * 1e9)
        span = self._tracer.start_span("fedbbpt.event", start_time=at, attributes={"event": figures.of_event(event)})
        span.end(at)
        if isinstance(span, ReadableSpan) and self._spans.export([span]) is not SpanExportResult.SUCCESS:
            raise Unavailable("the collector did not take an event")

    def end(self, summary: Mapping[str, Any]) -> None:
        self._show("summary", figures.of_summary(summary))

    def _show(self, kind: str, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            name = f"fedbbpt.{kind}.{key}"
            if name not in self._gauges:
                self._gauges[name] = self._meter.create_gauge(name)
            self._gauges[name].set(value, {"run": self._run})
        data = self._reader.get_metrics_data()
        if data is not None and self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise Unavailable("the collector did not take the figures")

    def close(self) -> None:
        self._exporter.shutdown()
        self._spans.shutdown()  # type: ignore[no-untyped-call]  # the package has no type here
