"""Traces of rounds across coordinator, clients and PTM, by OpenTelemetry.

A process that the environment gives a collector (OTEL_EXPORTER_OTLP_ENDPOINT, as with every program that speaks
OpenTelemetry) records spans and exports them from a thread. In any other process everything here returns at once, and
OpenTelemetry is not imported.

A span's place in its trace travels as W3C Trace Context: in the metadata `traceparent` of a call, and in the header of
a task, since a client's tasks share one call.
"""

import atexit
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fedbbpt.host.extras import require_package
from fedbbpt.wire.collector import EXPORT_SECONDS, collector_session

log = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACEPARENT = "traceparent"
MAX_TRACEPARENT = 55
"""The length of a traceparent of version 00. Longer ones are ignored."""

_tracer: Any = None
"""None while this process records no spans."""


def start(role: str, url: str = "") -> Callable[[], None]:
    """Begins to record spans if there is a collector, and returns a function that exports the last ones and ends it.

    The end of the process calls that function, too.

    Args:
        role: What this process is; the service is `fedbbpt-ROLE`.
        url: The collector's URL; by default the environment's.

    Raises:
        InvalidInput: There is a collector, and the package that exports to it is not installed.
    """
    global _tracer
    url = (url or os.environ.get(ENDPOINT, "")).rstrip("/")
    if not url:
        return lambda: None
    require_package("opentelemetry.exporter.otlp.proto.http", "otel", where=ENDPOINT)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(f"{url}/v1/traces", timeout=EXPORT_SECONDS, session=collector_session(url))
    provider = TracerProvider(resource=Resource.create({"service.name": f"fedbbpt-{role}"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    _tracer = provider.get_tracer("fedbbpt")
    log.info("spans go to the collector at %s", url)

    def stop() -> None:
        global _tracer
        _tracer = None
        atexit.unregister(stop)
        provider.shutdown()

    atexit.register(stop)
    return stop


def recording() -> bool:
    """Returns whether this process records spans."""
    return _tracer is not None


def span(name: str, parent: str = "", **attributes: str | int) -> AbstractContextManager[None]:
    """Records a `with` block as a span, inside that of the traceparent `parent`, or else inside the current one."""
    return nullcontext() if _tracer is None else _recorded(name, parent, attributes)


@contextmanager
def _recorded(name: str, parent: str, attributes: dict[str, str | int]) -> Iterator[None]:
    with _tracer.start_as_current_span(name, context=_context(parent), attributes=_named(attributes)):
        yield


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"fedbbpt.{key}": value for key, value in attributes.items()}


def _context(parent: str) -> Any:
    """Returns the context of a traceparent; None, which is the current one, without a valid traceparent."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not parent or len(parent) > MAX_TRACEPARENT:
        return None
    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent})


def metadata() -> tuple[tuple[str, str], ...] | None:
    """Returns the metadata of a call inside the current span; None if there is nothing to say."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items()) or None


def received(metadata: Any) -> str:
    """Returns the traceparent in a call's metadata, if there is one."""
    return next((value for key, value in metadata or () if key == TRACEPARENT and isinstance(value, str)), "")


class RoundSpan:
    """The span of a run's open round, the root of the round's trace. It lives from its first task to the next round."""

    def __init__(self, run: str) -> None:
        self._run, self._round = run, -1
        self._span: Any = None

    def traceparent(self, round: int) -> str:
        """Returns the traceparent of a round, whose span begins if it has not begun; "" if nothing is recorded."""
        if _tracer is None:
            return ""
        if self._span is None or round != self._round:
            self.end()
            self._round = round
            attributes = _named({"run": self._run, "round": round})
            self._span = _tracer.start_span("round", attributes=attributes, context=_empty())
        found = self._span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def inside(self, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """Records a `with` block as a span of the open round."""
        if _tracer is None or self._span is None:
            return nullcontext()
        return span(name, self.traceparent(self._round), **attributes)

    def end(self) -> None:
        """Ends the span, if one is open."""
        if self._span is not None:
            self._span.end()
        self._span = None


def _empty() -> Any:
    from opentelemetry.context import Context

    return Context()
