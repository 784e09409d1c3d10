"""The metrics of a coordinator's runs for Prometheus, read when they are asked for. The only label values that callers
choose are the names of runs, of which a coordinator has few.
"""

import asyncio
import concurrent.futures
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.runs import Runs

READ_SECONDS = 5.0
"""How long a reader waits for the event loop."""


def coordinator_registry(runs: Runs) -> CollectorRegistry:
    """Returns the metrics of the runs on the current event loop, which may be read from any thread."""
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()

    async def read() -> list[Any]:
        return families(runs)

    class Reader(Collector):
        def collect(self) -> Iterator[Any]:
            reading = asyncio.run_coroutine_threadsafe(read(), loop)
            try:
                yield from reading.result(READ_SECONDS)
            except (TimeoutError, concurrent.futures.CancelledError):
                return  # the coordinator stops

        def describe(self) -> Iterator[Any]:
            return iter(())  # otherwise registering would wait for the loop that it runs on

    registry.register(Reader())
    return registry


def families(runs: Runs) -> list[Any]:
    """Returns all metrics at this moment."""
    rounds = SummaryMetricFamily("fedbbpt_run_round_seconds", "Seconds that closed rounds took", labels=["run"])
    queries = CounterMetricFamily("fedbbpt_run_queries", "Pairs of a prompt and an example", labels=["run"])
    states = GaugeMetricFamily("fedbbpt_run_state", "1 for the state that the run has reached", labels=["run", "state"])
    members = GaugeMetricFamily("fedbbpt_run_members", "Clients that take part", labels=["run", "condition"])
    updates = CounterMetricFamily("fedbbpt_run_updates", "Updates by receipt or error", labels=["run", "receipt"])
    traffic = CounterMetricFamily("fedbbpt_run_bytes", "Bytes of the clients' connections", labels=["run", "direction"])
    store = HistogramMetricFamily(
        "fedbbpt_run_store_seconds", "Seconds of a write to the store", labels=["run", "write"]
    )
    for run in runs:
        status, reports = run.coordinator.status(), run.coordinator.reports(0)
        rounds.add_metric([run.name], len(reports), sum(report.seconds for report in reports))
        queries.add_metric([run.name], status.queries)
        states.add_metric([run.name, status.state], 1)
        for condition, count in _conditions(run).items():
            members.add_metric([run.name, condition], count)
        for receipt, count in run.answers.items():
            updates.add_metric([run.name, receipt], count)
        for direction, size in (("up", status.bytes_up), ("down", status.bytes_down)):
            if size is not None:
                traffic.add_metric([run.name, direction], size)
        for kind, durations in run.writes.items():
            store.add_metric([run.name, kind], durations.cumulated(), durations.seconds)
    return [rounds, queries, states, members, updates, traffic, store]


def _conditions(run: LiveRun) -> Counter[str]:
    """Counts the clients that take part by what they are; one may be several things."""
    counts = Counter(all=0, connected=0, answered=0, troubled=0)
    for member in run.coordinator.status().members:
        counts.update(
            all=member.takes_part, connected=member.connected, answered=member.submitted, troubled=bool(member.trouble)
        )
    return counts
