"""A real OTLP collector on loopback: an HTTP server that parses what arrives, and fails on demand."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_SECONDS = 60.0


class Collector:
    """What has arrived at a collector. It can be read while more arrives."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.metrics: list[tuple[str, float]] = []
        """Each point of a gauge, in the order of arrival."""
        self.spans: list[tuple[str, Any]] = []
        """Each span with the service's name."""
        self.resources: list[dict[str, str]] = []
        self.fails = 0
        """The number of requests to refuse with 400, which exporters do not repeat."""
        self._changed = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        """Takes a request's body. Raises ValueError for a path that is none of OTLP's."""
        with self._changed:
            if path == "/v1/metrics":
                self._take_metrics(ExportMetricsServiceRequest.FromString(body))
            elif path == "/v1/traces":
                self._take_spans(ExportTraceServiceRequest.FromString(body))
            else:
                raise ValueError(path)
            self._changed.notify_all()

    def _take_metrics(self, request: Any) -> None:
        for resource in request.resource_metrics:
            self.resources.append(_attributes(resource.resource))
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        value = point.as_double if point.HasField("as_double") else float(point.as_int)
                        self.metrics.append((metric.name, value))

    def _take_spans(self, request: Any) -> None:
        for resource in request.resource_spans:
            service = _attributes(resource.resource)["service.name"]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]

    def values(self, name: str) -> list[float]:
        """Returns the values of a gauge, in the order of arrival."""
        return [value for key, value in self.metrics if key == name]

    def await_spans(self, holds: Any) -> list[tuple[str, Any]]:
        """Returns the spans once `holds(spans)` is true. Fails after a minute."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.spans), WAIT_SECONDS), self.spans
            return list(self.spans)


def attributes(span: Any) -> dict[str, str]:
    """Returns the attributes of a span as texts."""
    return _attributes(span)


def _attributes(message: Any) -> dict[str, str]:
    found = {}
    for pair in message.attributes:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = str(getattr(pair.value, kind)) if kind else ""
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    """Serves a collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if found.fails:
                found.fails -= 1
                self._answer(400)
                return
            found.take(self.path, body)
            self._answer(200)

        def _answer(self, code: int) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
