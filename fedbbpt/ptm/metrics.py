"""The PTM service's metrics for Prometheus. All label values are fixed, except the names of tenants."""

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedbbpt.host.metrics_page import serve_metrics
from fedbbpt.types import Usage
from fedbbpt.wire.descriptors import open_descriptors

BUCKETS_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


def _open_descriptors() -> float:
    found = open_descriptors()
    return math.nan if found is None else found


class PtmMetrics:
    """Metrics in a registry of their own, so that several services in one process do not mix theirs."""

    def __init__(self, *, queued_tokens: Callable[[], float], kept_bytes: Callable[[], float]) -> None:
        """`queued_tokens` and `kept_bytes` return current values, and are called at each scrape."""
        self.registry = CollectorRegistry()
        tenant = ("tenant",)
        self._queries = self._counter("queries", "Answered queries", ("tenant", "cached"))
        self._tokens = self._counter("tokens", "Tokens that the model computed", tenant)
        self._compute = self._counter("compute_seconds", "Seconds that threads spent computing, added up", tenant)
        self._cost = self._counter("cost_micros", "Cost in millionths of the currency's unit", tenant)
        self._bounded = self._counter("bounded_scores", "Scores of classes that are upper bounds", tenant)
        self._calls = self._counter("calls", "Ended calls by status", ("rpc", "status"))
        self._waited = Histogram(
            "fedbbpt_ptm_queue_seconds",
            "Seconds between planning a call and its first micro-batch",
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )
        for name, text, read in (
            ("queued_tokens", "Tokens that wait to be computed", queued_tokens),
            ("kept_bytes", "Estimated bytes of registered examples", kept_bytes),
            ("open_descriptors", "Open file descriptors, one for each connection and some more", _open_descriptors),
        ):
            Gauge(f"fedbbpt_ptm_{name}", text, registry=self.registry).set_function(read)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"fedbbpt_ptm_{name}", text, labels, registry=self.registry)

    def used(self, tenant: str, usage: Usage) -> None:
        """Counts the usage of one call."""
        self._queries.labels(tenant, "no").inc(usage.queries - usage.cached_queries)
        self._queries.labels(tenant, "yes").inc(usage.cached_queries)
        self._tokens.labels(tenant).inc(usage.tokens)
        self._compute.labels(tenant).inc(usage.compute_seconds)
        self._cost.labels(tenant).inc(usage.cost_micros)
        self._bounded.labels(tenant).inc(usage.bounded_scores)
        self._waited.observe(usage.queue_seconds)

    def ended(self, rpc: str, status: str) -> None:
        """Counts a call that ended. `status` is "ok", "cancelled", "bug", or the name of the error."""
        self._calls.labels(rpc, status).inc()

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serves http://host:port/metrics and returns a function that stops it. Raises PortTaken."""
        return serve_metrics(self.registry, host, port)
