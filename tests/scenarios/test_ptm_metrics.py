"""The metrics of a PTM service reach Prometheus unchanged."""

import socket
import time
import urllib.request
from typing import Any

import pytest

from fedbbpt.errors import PortTaken
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.metrics import PtmMetrics
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import Examples, TaskSpec, TextPrompts, Usage
from fedbbpt.wire.channel import connect


def test_usage_is_counted_by_tenant() -> None:
    metrics = PtmMetrics(queued_tokens=lambda: 5.0, kept_bytes=lambda: 7.0)
    for _ in range(2):
        metrics.used("anna", Usage(10, 300, 0.5, 4, 0.02, 99))
    metrics.ended("Score", "BudgetSpent")
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        free = attempt.getsockname()[1]
    stop = metrics.serve("127.0.0.1", free)
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        page = direct.open(f"http://127.0.0.1:{free}/metrics", timeout=10.0).read().decode()
        with pytest.raises(PortTaken, match="--metrics-port"):
            metrics.serve("127.0.0.1", free)
    finally:
        stop()
    for line in (
        'fedbbpt_ptm_queries_total{cached="no",tenant="anna"} 12.0',
        'fedbbpt_ptm_queries_total{cached="yes",tenant="anna"} 8.0',
        'fedbbpt_ptm_tokens_total{tenant="anna"} 600.0',
        'fedbbpt_ptm_cost_micros_total{tenant="anna"} 198.0',
        'fedbbpt_ptm_calls_total{rpc="Score",status="BudgetSpent"} 1.0',
        "fedbbpt_ptm_queued_tokens 5.0",
        "fedbbpt_ptm_kept_bytes 7.0",
    ):
        assert f"\n{line}\n" in page


def test_service_counts_queries_and_calls(ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic))
    ptm = RemotePtm(connect(f"127.0.0.1:{port}"))
    handle = ptm.register_examples(ptm.register_task(TaskSpec("{prompt} {text}", ("a", "b"))), Examples(("x", "y")), 4)
    for _ in range(2):
        ptm.score(handle.id, TextPrompts(("one", "two", "three")))
    told = ptm_servers.metrics(port).registry.get_sample_value
    for cached in ("no", "yes"):
        assert told("fedbbpt_ptm_queries_total", {"tenant": "anyone", "cached": cached}) == 6.0
    assert told("fedbbpt_ptm_calls_total", {"rpc": "Score", "status": "ok"}) == 2.0
